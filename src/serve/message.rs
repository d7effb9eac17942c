//! What is told, as each kind of receiver reads it. Names and counts; no row values.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::incident::Change;
use crate::agent::SOFTWARE;
use crate::ledger::{Finding, Incident};

/// The version of the webhook's document.
pub(super) const MESSAGE_VERSION: u32 = 1;
/// PagerDuty cuts nothing: it refuses.
const SUMMARY_CHARS: usize = 1000;
const DEDUP_CHARS: usize = 200;
/// A list as long as this is read by nobody.
const LINES: usize = 20;

/// One incident, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its own: the same however often it is sent.
    #[serde(default)]
    pub id: String,
    /// `firing`, `still_firing` or `resolved`.
    pub action: String,
    /// The same for an incident's begin and end.
    pub key: String,
    pub check: String,
    pub kind: String,
    pub pair: String,
    pub table: Option<String>,
    /// `fail`, `unknown`, or how it passes again.
    pub status: String,
    pub severity: String,
    pub owner: Option<String>,
    /// What was found, in one line.
    pub facts: String,
    /// What was found first and at the worst, and by which runs, where that is not `facts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Found>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst: Option<Found>,
    pub hint: Option<String>,
    pub run: String,
    pub link: Option<String>,
    /// RFC 3339, UTC.
    pub opened_at: String,
    pub at: String,
    /// It came and went in the last quarter of an hour.
    pub flapping: bool,
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub facts: String,
    pub run: String,
    /// RFC 3339, UTC.
    pub at: String,
}

impl Found {
    fn of(finding: &Finding) -> Self {
        Self { facts: finding.result.facts(), run: finding.run.clone(), at: finding.at.clone() }
    }
}

impl Item {
    pub fn of(incident: &Incident, change: Change, public_url: Option<&str>) -> Self {
        let result = &incident.result;
        // One that opens has nothing before it.
        let before = |finding: &Finding| (finding.run != incident.run).then(|| Found::of(finding));
        Self {
            id: String::new(),
            action: match change {
                Change::Firing => "firing",
                Change::Goes => "still_firing",
                Change::Resolved => "resolved",
            }
            .to_owned(),
            key: incident.key.clone(),
            check: result.name.clone(),
            kind: result.kind.clone(),
            pair: result.pair.clone(),
            table: result.table.clone(),
            status: result.status.as_str().to_owned(),
            severity: result.severity.clone(),
            owner: result.owner.clone(),
            facts: result.facts(),
            first: before(&incident.first),
            worst: before(&incident.worst),
            hint: result.hint.clone(),
            run: incident.run.clone(),
            link: public_url.map(|base| format!("{base}/runs/{}", incident.run)),
            opened_at: incident.opened_at.clone(),
            at: incident.seen_at.clone(),
            flapping: incident.flaps > 0,
        }
    }

    pub(super) fn is_resolved(&self) -> bool {
        self.action == "resolved"
    }

    fn title(&self) -> String {
        let table = self.table.as_ref().map_or_else(String::new, |table| format!(" {table}"));
        let what = match (self.action.as_str(), self.status.as_str()) {
            ("resolved", _) => "passes again",
            ("still_firing", "unknown") => "still could not tell",
            ("still_firing", _) => "still fails",
            (_, "unknown") => "could not tell",
            _ => "fails",
        };
        format!("{}{table} {what}", self.check)
    }

    fn line(&self) -> String {
        let facts = if self.facts.is_empty() { String::new() } else { format!(": {}", self.facts) };
        format!("{}{facts}{}", self.title(), self.history())
    }

    /// What was wrong, for who reads that it passes again.
    fn history(&self) -> String {
        let said = |what: &str, found: &Found| match found.facts.as_str() {
            "" => String::new(),
            facts => format!("; {what}: {facts}"),
        };
        match (&self.first, &self.worst) {
            (Some(first), Some(worst)) if first.facts == worst.facts => said("it had found", first),
            (first, worst) => {
                let first = first.as_ref().map_or_else(String::new, |first| said("at first", first));
                first + &worst.as_ref().map_or_else(String::new, |worst| said("at its worst", worst))
            }
        }
    }
}

/// The generic document: a webhook's body, a command's standard input.
pub(super) fn document(items: &[Item], at: &str) -> Value {
    json!({ "version": MESSAGE_VERSION, "software": SOFTWARE, "sent_at": at, "alerts": items })
}

pub(super) fn subject(items: &[Item]) -> String {
    let firing: Vec<&Item> = items.iter().filter(|item| !item.is_resolved()).collect();
    match (firing.as_slice(), items) {
        ([one], _) => format!("[trueup] {}: {}", one.severity, one.title()),
        ([], [one]) => format!("[trueup] resolved: {}", one.title()),
        ([], all) => format!("[trueup] resolved: {} checks pass again", all.len()),
        (some, _) => {
            let worst = ["critical", "warning", "info"]
                .into_iter()
                .find(|severity| some.iter().any(|item| item.severity == *severity));
            format!("[trueup] {}: {} checks fail", worst.unwrap_or("warning"), some.len())
        }
    }
}

pub(super) fn plain(items: &[Item]) -> String {
    let mut out = String::new();
    for item in items {
        out += &format!("{}\n", item.line());
        let owner = item.owner.as_ref().map_or_else(String::new, |owner| format!(", owner {owner}"));
        out +=
            &format!("  severity {}{owner}, pair {}, since {}\n", item.severity, item.pair, item.opened_at);
        if let Some(hint) = &item.hint {
            out += &format!("  hint: {hint}\n");
        }
        out += &format!(
            "  run {}{}\n\n",
            item.run,
            item.link.as_ref().map_or_else(String::new, |link| format!(": {link}"))
        );
    }
    out
}

pub(super) fn slack(items: &[Item]) -> Value {
    // Slack's three characters; nothing else is special in a line of its markup that is not meant to be.
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut lines = vec![format!("*{}*", escaped(&subject(items)))];
    for item in items.iter().take(LINES) {
        let mark = if item.is_resolved() { ":white_check_mark:" } else { ":rotating_light:" };
        let owner = item.owner.as_ref().map_or_else(String::new, |owner| format!(" (owner {owner})"));
        let link = item.link.as_ref().map_or_else(String::new, |link| format!(" <{link}|run>"));
        lines.push(format!("{mark} {}{link}", escaped(&format!("{}{owner}", item.line()))));
    }
    if items.len() > LINES {
        lines.push(format!("and {} more", items.len() - LINES));
    }
    json!({ "text": lines.join("\n") })
}

/// One event of PagerDuty's Events API, version 2.
pub(super) fn pagerduty(item: &Item, routing_key: &str) -> Value {
    let cut = |text: &str, chars: usize| text.chars().take(chars).collect::<String>();
    let mut event = json!({
        "routing_key": routing_key,
        "event_action": if item.is_resolved() { "resolve" } else { "trigger" },
        "dedup_key": cut(&format!("trueup/{}", item.key), DEDUP_CHARS),
        "payload": {
            "summary": cut(&item.line(), SUMMARY_CHARS),
            "source": format!("trueup pair {}", item.pair),
            "severity": item.severity,
            "timestamp": item.at,
            "component": item.table,
            "group": item.pair,
            "class": item.kind,
            "custom_details": item,
        },
    });
    if let (Some(link), Some(event)) = (&item.link, event.as_object_mut()) {
        event.insert("links".to_owned(), json!([{ "href": link, "text": "the run" }]));
    }
    event
}

#[cfg(test)]
mod tests {
    use super::super::incident::tests::result;
    use super::*;
    use crate::report::checks::Status;
    use crate::serve::step;

    fn item(change: Change) -> Item {
        let (incident, _) = step(None, &result(Status::Fail), "run-1", "2026-01-01T00:00:00.000Z").unwrap();
        Item::of(&incident, change, Some("https://t.example"))
    }

    #[test]
    fn each_receiver_gets_its_form() {
        let firing = item(Change::Firing);
        let slack = slack(std::slice::from_ref(&firing));
        assert_eq!(
            slack["text"],
            "*[trueup] critical: rows orders fails*\n:rotating_light: rows orders fails: source 10, target 9; 1 missing (owner data &lt;team&gt;) <https://t.example/runs/run-1|run>"
        );
        let event = pagerduty(&firing, "R");
        assert_eq!(
            (
                &event["event_action"],
                &event["dedup_key"],
                &event["payload"]["severity"],
                &event["links"][0]["href"]
            ),
            (
                &json!("trigger"),
                &json!("trueup/rows/orders"),
                &json!("critical"),
                &json!("https://t.example/runs/run-1")
            )
        );
        let end = pagerduty(&item(Change::Resolved), "R");
        assert_eq!((&end["event_action"], &end["dedup_key"]), (&json!("resolve"), &event["dedup_key"]));
        let all = document(&[firing.clone(), item(Change::Resolved)], "2026-01-01T00:00:01.000Z");
        assert_eq!((&all["version"], &all["alerts"][1]["action"]), (&json!(1), &json!("resolved")));
        assert!(plain(&[firing]).contains("severity critical, owner data <team>, pair shop, since 2026"));
    }

    #[test]
    fn what_was_wrong_is_said_when_it_passes_again() {
        let at = "2026-01-01T00:00:00.000Z";
        let lost = |rows: f64| crate::report::checks::CheckResult {
            message: Some(format!("{rows} missing")),
            extent: Some(rows),
            ..result(Status::Fail)
        };
        let (incident, _) = step(None, &lost(5.0), "run-1", at).unwrap();
        assert!(Item::of(&incident, Change::Firing, None).first.is_none(), "it is what it is");
        let (incident, _) = step(Some(incident), &lost(6762.0), "run-2", at).unwrap();
        let (incident, change) = step(Some(incident), &result(Status::Pass), "run-3", at).unwrap();
        let item = Item::of(&incident, change.unwrap(), None);
        assert_eq!((item.action.as_str(), item.run.as_str()), ("resolved", "run-3"));
        assert_eq!(item.worst.as_ref().map(|worst| worst.run.as_str()), Some("run-2"));
        assert!(
            item.line().ends_with(
                "; at first: source 10, target 9; 5 missing; at its worst: source 10, target 9; 6762 missing"
            ),
            "{}",
            item.line()
        );
    }

    #[test]
    fn subjects_count_what_fails() {
        let (firing, resolved) = (item(Change::Firing), item(Change::Resolved));
        for (items, subject_is) in [
            (vec![firing.clone()], "[trueup] critical: rows orders fails"),
            (vec![firing.clone(), resolved.clone()], "[trueup] critical: rows orders fails"),
            (vec![firing.clone(), firing], "[trueup] critical: 2 checks fail"),
            (vec![resolved.clone()], "[trueup] resolved: rows orders passes again"),
            (vec![resolved.clone(), resolved], "[trueup] resolved: 2 checks pass again"),
        ] {
            assert_eq!(subject(&items), subject_is);
        }
    }
}
