//! What checks came to: as text, JSON, and JUnit XML.

use std::fmt::Write;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use serde::{Deserialize, Serialize};

use super::render::Style;
use crate::model::ColumnCoverage;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChecksReport {
    pub schema_version: u32,
    pub software: String,
    pub command: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    pub seconds: f64,
    pub status: Status,
    pub checks: Vec<CheckResult>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Pass,
    WithinTolerance,
    Fail,
    /// Could not tell; never to be read as a pass.
    Unknown,
}

impl Status {
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Pass | Self::WithinTolerance => 0,
            Self::Fail => 1,
            Self::Unknown => 2,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::WithinTolerance => "within_tolerance",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Pass => ("pass", "32"),
            Self::WithinTolerance => ("within tolerance", "32"),
            Self::Fail => ("FAIL", "31"),
            Self::Unknown => ("could not tell", "33"),
        }
    }
}

/// One check of one table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    pub name: String,
    pub kind: String,
    pub pair: String,
    /// The source's name of it; none for a query of one's own.
    pub table: Option<String>,
    pub status: Status,
    pub severity: String,
    pub owner: Option<String>,
    /// What both sides measured; values that stand in rows only where they were asked for.
    pub source: Option<String>,
    pub target: Option<String>,
    pub difference: Option<String>,
    /// How far apart the two sides are: rows that differ, the distance of numbers, microseconds of moments. Bigger is worse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extent: Option<f64>,
    pub message: Option<String>,
    pub hint: Option<String>,
    /// Kind rows: how many columns were compared, and which have no partner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<ColumnCoverage>,
    /// What a person must know of the table, each with its side.
    #[serde(default)]
    pub notes: Vec<String>,
    pub seconds: f64,
}

impl CheckResult {
    pub fn title(&self) -> String {
        match &self.table {
            Some(table) => format!("{} {table}", self.name),
            None => self.name.clone(),
        }
    }

    /// One line of what was found.
    pub fn facts(&self) -> String {
        let mut facts = Vec::new();
        if let (Some(source), Some(target)) = (&self.source, &self.target) {
            facts.push(format!("source {source}, target {target}"));
        }
        facts.extend(self.difference.as_ref().map(|difference| format!("apart by {difference}")));
        facts.extend(self.message.clone());
        facts
            .extend(self.columns.as_ref().map(ColumnCoverage::summary).filter(|summary| !summary.is_empty()));
        if facts.is_empty() && self.status == Status::Fail {
            facts.push("the two sides differ".to_owned());
        }
        facts.join("; ")
    }
}

pub fn overall(checks: &[CheckResult]) -> Status {
    checks.iter().map(|check| check.status).max().unwrap_or(Status::Pass)
}

pub fn json(report: &ChecksReport) -> String {
    serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
}

pub fn text(report: &ChecksReport, style: Style) -> String {
    let mut out = String::new();
    for check in &report.checks {
        let (word, code) = check.status.words();
        let facts = check.facts();
        let facts = if facts.is_empty() { facts } else { format!(": {facts}") };
        let _ = writeln!(
            out,
            "{} {} ({}){facts}",
            style.paint(&format!("{word:16}"), code),
            style.paint(&check.title(), "1"),
            check.kind
        );
        for note in &check.notes {
            let _ = writeln!(out, "                 note: {note}");
        }
        if check.status >= Status::Fail {
            let owner = check.owner.as_ref().map_or_else(String::new, |owner| format!(", owner {owner}"));
            let _ = writeln!(out, "                 severity {}{owner}", check.severity);
            if let Some(hint) = &check.hint {
                let _ = writeln!(out, "                 hint: {hint}");
            }
        }
    }
    let count = |status| report.checks.iter().filter(|check| check.status == status).count();
    let _ = writeln!(
        out,
        "{} checks: {} passed, {} within tolerance, {} failed, {} could not tell",
        report.checks.len(),
        count(Status::Pass),
        count(Status::WithinTolerance),
        count(Status::Fail),
        count(Status::Unknown)
    );
    out
}

/// As CI servers read it: a suite a pair, a case a check and table.
pub fn junit(report: &ChecksReport) -> String {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    // Writing to memory does not fail.
    let _ = write_junit(&mut writer, report);
    String::from_utf8_lossy(&writer.into_inner()).into_owned() + "\n"
}

fn write_junit(writer: &mut Writer<Vec<u8>>, report: &ChecksReport) -> std::io::Result<()> {
    let of =
        |checks: &[&CheckResult], status| checks.iter().filter(|c| c.status == status).count().to_string();
    let all: Vec<&CheckResult> = report.checks.iter().collect();
    let mut pairs: Vec<&str> = report.checks.iter().map(|check| check.pair.as_str()).collect();
    pairs.sort_unstable();
    pairs.dedup();
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    writer
        .create_element("testsuites")
        .with_attributes([
            ("name", "trueup"),
            ("tests", all.len().to_string().as_str()),
            ("failures", of(&all, Status::Fail).as_str()),
            ("errors", of(&all, Status::Unknown).as_str()),
            ("time", format!("{:.3}", report.seconds).as_str()),
        ])
        .write_inner_content(|writer| {
            for pair in pairs {
                let checks: Vec<&CheckResult> = all.iter().copied().filter(|c| c.pair == pair).collect();
                let seconds: f64 = checks.iter().map(|check| check.seconds).sum();
                writer
                    .create_element("testsuite")
                    .with_attributes([
                        ("name", plain(pair).as_str()),
                        ("timestamp", report.started_at.trim_end_matches('Z')),
                        ("tests", checks.len().to_string().as_str()),
                        ("failures", of(&checks, Status::Fail).as_str()),
                        ("errors", of(&checks, Status::Unknown).as_str()),
                        ("time", format!("{seconds:.3}").as_str()),
                    ])
                    .write_inner_content(|writer| {
                        checks.iter().try_for_each(|check| write_case(writer, check))
                    })?;
            }
            Ok(())
        })?;
    Ok(())
}

fn write_case(writer: &mut Writer<Vec<u8>>, check: &CheckResult) -> std::io::Result<()> {
    let class = match &check.table {
        Some(table) => format!("{}.{table}", check.pair),
        None => check.pair.clone(),
    };
    let facts = plain(&check.facts());
    writer
        .create_element("testcase")
        .with_attributes([
            ("classname", plain(&class).as_str()),
            ("name", plain(&check.name).as_str()),
            ("time", format!("{:.3}", check.seconds).as_str()),
        ])
        .write_inner_content(|writer| {
            let notes: String = check.notes.iter().map(|note| format!("note: {note}\n")).collect();
            let details = || {
                let owner =
                    check.owner.as_ref().map_or_else(String::new, |owner| format!("owner: {owner}\n"));
                let hint = check.hint.as_ref().map_or_else(String::new, |hint| format!("hint: {hint}\n"));
                plain(&format!(
                    "kind: {}\nseverity: {}\n{owner}{hint}{notes}{facts}",
                    check.kind, check.severity
                ))
            };
            let element = match check.status {
                Status::Fail => "failure",
                Status::Unknown => "error",
                Status::Pass | Status::WithinTolerance => {
                    let said = plain(&format!("{notes}{facts}"));
                    if !said.is_empty() {
                        writer.create_element("system-out").write_text_content(BytesText::new(&said))?;
                    }
                    return Ok(());
                }
            };
            writer
                .create_element(element)
                .with_attributes([("message", facts.as_str()), ("type", check.severity.as_str())])
                .write_text_content(BytesText::new(&details()))?;
            Ok(())
        })?;
    Ok(())
}

/// Without the characters that XML 1.0 has no way to write.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| matches!(c, '\t' | '\n' | '\r') || (*c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}')))
        .collect()
}

#[cfg(test)]
mod tests {
    use quick_xml::Reader;

    use super::*;

    fn result(name: &str, status: Status) -> CheckResult {
        CheckResult {
            name: name.to_owned(),
            kind: "count".to_owned(),
            pair: "shop".to_owned(),
            table: Some("orders".to_owned()),
            status,
            severity: "warning".to_owned(),
            owner: Some("data".to_owned()),
            source: Some("5".to_owned()),
            target: Some("4".to_owned()),
            difference: Some("1".to_owned()),
            message: Some("<odd> & \"quoted\" \u{1} ]]>".to_owned()),
            hint: None,
            extent: None,
            columns: None,
            notes: Vec::new(),
            seconds: 0.5,
        }
    }

    fn report(checks: Vec<CheckResult>) -> ChecksReport {
        ChecksReport {
            schema_version: 1,
            software: "trueup".to_owned(),
            command: "check".to_owned(),
            started_at: "2024-01-01T00:00:00Z".to_owned(),
            seconds: 1.0,
            status: overall(&checks),
            checks,
        }
    }

    #[test]
    fn the_worst_decides() {
        let of =
            |all: &[Status]| overall(&all.iter().map(|s| result("a", *s)).collect::<Vec<_>>()).exit_status();
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[Status::Pass, Status::WithinTolerance]), 0);
        assert_eq!(of(&[Status::Fail, Status::Pass]), 1);
        assert_eq!(of(&[Status::Unknown, Status::Fail]), 2);
    }

    #[test]
    fn junit_is_whole_xml_with_every_case() {
        let checks = vec![
            result("good", Status::Pass),
            result("bad\u{0}", Status::Fail),
            result("near", Status::WithinTolerance),
            result("lost", Status::Unknown),
        ];
        let xml = junit(&report(checks));
        let mut reader = Reader::from_str(&xml);
        let (mut depth, mut elements) = (0, Vec::new());
        loop {
            match reader.read_event().unwrap() {
                Event::Start(start) => {
                    depth += 1;
                    for attribute in start.attributes() {
                        attribute.unwrap();
                    }
                    elements.push(start.name().as_ref().to_owned());
                }
                Event::End(_) => depth -= 1,
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(depth, 0);
        let count = |name: &str| elements.iter().filter(|element| *element == name).count();
        assert_eq!([count("testcase"), count("failure"), count("error"), count("system-out")], [4, 1, 1, 2]);
        assert!(xml.contains("failures=\"1\" errors=\"1\"") && !xml.contains('\u{1}'), "{xml}");
        assert!(xml.contains("&lt;odd&gt; &amp;"), "{xml}");
    }

    #[test]
    fn every_format_has_the_notes_and_says_why_it_failed() {
        let noted =
            CheckResult { notes: vec!["target: <rows> hidden".to_owned()], ..result("a", Status::Pass) };
        let bare = CheckResult {
            source: None,
            target: None,
            difference: None,
            message: None,
            ..result("b", Status::Fail)
        };
        let report = report(vec![noted.clone(), CheckResult { status: Status::Unknown, ..noted }, bare]);
        let shown = text(&report, Style { color: false });
        assert_eq!(shown.matches("  note: target: <rows> hidden\n").count(), 2, "{shown}");
        let xml = junit(&report);
        assert_eq!(xml.matches("note: target: &lt;rows&gt; hidden").count(), 2, "{xml}");
        assert!(xml.contains("message=\"the two sides differ\"") && !xml.contains("message=\"\""), "{xml}");
        assert!(json(&report).contains("\"target: <rows> hidden\""));
    }

    #[test]
    fn people_see_what_failed_and_who_is_asked() {
        let shown = text(&report(vec![result("bad", Status::Fail)]), Style { color: false });
        assert!(
            shown.starts_with("FAIL             bad orders (count): source 5, target 4; apart by 1; "),
            "{shown}"
        );
        assert!(shown.contains("severity warning, owner data"));
        assert!(shown.ends_with("1 checks: 0 passed, 0 within tolerance, 1 failed, 0 could not tell\n"));
    }
}
