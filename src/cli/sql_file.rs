//! The file of `repair --sql`: the changes as statements, in one transaction, for a person to read and run.

use std::collections::BTreeSet;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Failure;
use super::output::Beside;
use crate::model::EngineKind;

/// Statements of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    inserts: u64,
    updates: u64,
    deletes: u64,
}

/// Statements of one kind, in the order in which they came.
#[derive(Debug)]
struct Part {
    file: BufWriter<NamedTempFile>,
    bytes: u64,
    count: u64,
    /// Where each table's statements begin.
    tables: Vec<(usize, u64)>,
}

/// Collects statements beside the file, which appears when all of them are there: deletes first, for they may free unique
/// values, and those of children before their parents'; then updates, then inserts, parents first. Where rows are updated, what other
/// tables refer to is deleted at the end, when nothing refers to it any more.
#[derive(Debug)]
pub(super) struct SqlFile {
    path: PathBuf,
    overwrite: bool,
    deletes: Part,
    updates: Part,
    inserts: Part,
    /// Deletes of rows to which other tables refer.
    last: Part,
}

/// What stands in the file's first lines.
pub(super) struct Heading<'a> {
    pub(super) source: &'a str,
    pub(super) target: &'a str,
    /// RFC 3339, UTC.
    pub(super) written_at: String,
    pub(super) run: Option<&'a str>,
}

impl SqlFile {
    pub(super) fn open(path: &Path, overwrite: bool) -> Result<Self, Failure> {
        if !overwrite && path.symlink_metadata().is_ok() {
            return Err(Failure::new(
                format!("{} is there already; nothing was written", path.display()),
                "give --sql another name, or accept with --overwrite that it is replaced",
            ));
        }
        let part = || Part::new(path);
        let (deletes, updates, inserts, last) = (part()?, part()?, part()?, part()?);
        Ok(Self { path: path.to_owned(), overwrite, deletes, updates, inserts, last })
    }

    /// `table`: its number in the run.
    pub(super) fn write(&mut self, table: usize, statement: &str, after_others: bool) -> Result<(), Failure> {
        let part = match statement.split(' ').next() {
            Some("INSERT") => &mut self.inserts,
            Some("DELETE") if after_others => &mut self.last,
            Some("DELETE") => &mut self.deletes,
            _ => &mut self.updates,
        };
        part.write(table, statement).map_err(|error| Beside::failed(&self.path, &error))
    }

    /// A run that was stopped has no file: half of the statements make nothing what it was. What is there already stays.
    pub(super) fn discard(self) {
        tracing::warn!("{} was not written, because the run was stopped", self.path.display());
    }

    /// Puts the file in its place, and says what is in it.
    pub(super) fn finish(self, engine: EngineKind, heading: &Heading<'_>) -> Result<String, Failure> {
        let failed = |error: std::io::Error| Beside::failed(&self.path, &error);
        let counts = Counts {
            inserts: self.inserts.count,
            updates: self.updates.count,
            deletes: self.deletes.count + self.last.count,
        };
        let numbers = |part: &Part| part.tables.iter().map(|(table, _)| *table).collect::<BTreeSet<usize>>();
        // Rows that are updated may refer to other rows afterwards. Where none is, deletes stand first: they may free unique values.
        let first = numbers(&self.updates).is_subset(&numbers(&self.last));
        let mut whole = BufWriter::new(Beside::create(&self.path)?);
        let (begin, end) = frame(engine);
        let text = format!("{}{begin}\n", comments(engine, heading, counts));
        whole.write_all(text.as_bytes()).map_err(failed)?;
        let (first, last) = if first { (Some(self.last), None) } else { (None, Some(self.last)) };
        for (part, last_first) in [
            (Some(self.deletes), true),
            (first, true),
            (Some(self.updates), false),
            (Some(self.inserts), false),
            (last, true),
        ] {
            part.map_or(Ok(()), |part| part.copy_to(&mut whole, last_first)).map_err(failed)?;
        }
        writeln!(whole, "{end}").map_err(failed)?;
        let whole = whole.into_inner().map_err(|error| failed(error.into_error()))?;
        Beside::put(whole, &self.path, self.overwrite)?;
        let Counts { inserts, updates, deletes } = counts;
        Ok(format!(
            "{} holds {inserts} INSERT, {updates} UPDATE and {deletes} DELETE statements; the target was not changed",
            self.path.display()
        ))
    }
}

impl Part {
    fn new(path: &Path) -> Result<Self, Failure> {
        Ok(Self { file: BufWriter::new(Beside::create(path)?), bytes: 0, count: 0, tables: Vec::new() })
    }

    fn write(&mut self, table: usize, statement: &str) -> std::io::Result<()> {
        if self.tables.last().is_none_or(|(last, _)| *last != table) {
            self.tables.push((table, self.bytes));
        }
        writeln!(self.file, "{statement}")?;
        self.bytes += statement.len() as u64 + 1;
        self.count += 1;
        Ok(())
    }

    /// Table by table, in the order in which they came, or the last table first.
    fn copy_to(self, to: &mut impl Write, last_first: bool) -> std::io::Result<()> {
        let mut file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let mut ends: Vec<u64> = self.tables.iter().skip(1).map(|(_, at)| *at).collect();
        ends.push(self.bytes);
        let mut stretches: Vec<(u64, u64)> = self.tables.iter().map(|(_, at)| *at).zip(ends).collect();
        if last_first {
            stretches.reverse();
        }
        for (from, end) in stretches {
            file.seek(SeekFrom::Start(from))?;
            std::io::copy(&mut Read::take(&mut file, end - from), to)?;
        }
        Ok(())
    }
}

/// Comments hold no names of tables or columns: a name may hold a line's end, and what follows it would be run.
fn comments(engine: EngineKind, heading: &Heading<'_>, counts: Counts) -> String {
    let run = heading.run.map_or_else(String::new, |run| format!(", run {run}"));
    let how = match engine {
        EngineKind::Postgres => "psql stops at an error and changes nothing: psql -v ON_ERROR_STOP=1 -f FILE",
        EngineKind::MySql => "the mysql and mariadb clients stop at an error and change nothing",
        EngineKind::Sqlite => {
            "give the shell -bail, so that it stops at an error and changes nothing: sqlite3 -bail DB < FILE"
        }
    };
    let lines = [
        format!("trueup {}: makes the target what the source was", env!("CARGO_PKG_VERSION")),
        format!("source: {}", heading.source),
        format!("target: {}", heading.target),
        format!("written {}{run}", heading.written_at),
        format!("{} inserts, {} updates, {} deletes", counts.inserts, counts.updates, counts.deletes),
        "An update or a delete changes its row only while it holds what was compared, as far as SQL can tell:".to_owned(),
        "types without an exact equality (JSON, floats of MySQL, geometry) are not asked.".to_owned(),
        "A row that has changed since is passed over: compare again afterwards.".to_owned(),
        "Rows that refer to each other, or exchange unique values, may be refused, and then nothing is changed: repair writes them.".to_owned(),
        how.to_owned(),
    ];
    lines.iter().map(|line| format!("-- {}\n", one_line(line))).collect()
}

/// Without control characters, which might end the comment.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c })
        .collect()
}

/// What stands before and behind the statements: their text is UTF-8 and means the same whatever the client and the
/// database are set to, and all are one transaction.
fn frame(engine: EngineKind) -> (&'static str, &'static str) {
    match engine {
        EngineKind::Postgres => (
            "BEGIN;\nSET LOCAL client_encoding = 'UTF8';\nSET LOCAL DateStyle = 'ISO, YMD';\nSET LOCAL IntervalStyle = 'postgres';\n\
             SET LOCAL TimeZone = 'UTC';\nSET LOCAL array_nulls = on;\nSET LOCAL xmloption = content;\n\
             SET LOCAL lc_monetary = 'C';\nSET CONSTRAINTS ALL DEFERRED;",
            "COMMIT;",
        ),
        // An id of 0 is not to become the next number.
        EngineKind::MySql => (
            "SET NAMES utf8mb4;\nSET SESSION sql_mode = CONCAT(@@session.sql_mode, ',STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO');\n\
             START TRANSACTION;",
            "COMMIT;",
        ),
        EngineKind::Sqlite => ("PRAGMA foreign_keys = ON;\nBEGIN IMMEDIATE;", "COMMIT;"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_ends_where_its_line_does() {
        let heading = Heading {
            source: "sqlite:///tmp/a\n\\! touch x\r\u{85}b.db",
            target: "t",
            written_at: "2026-01-01T00:00:00Z".to_owned(),
            run: None,
        };
        for engine in [EngineKind::Postgres, EngineKind::MySql, EngineKind::Sqlite] {
            let text = comments(engine, &heading, Counts::default());
            assert!(text.lines().all(|line| line.starts_with("-- ")), "{text}");
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        }
    }
}
