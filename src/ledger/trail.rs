//! Adding to the audit trail and reading it.

use std::time::Duration;

use super::chain::{Entry, Head, Link, Verification, Verifier};
use super::runs::seal_of;
use super::store::{Cell, Row, Step, StoreError, places, query};
use super::{Fault, Ledger, LedgerError};
use crate::agent::HASH_DIGITS;

/// Others add at the same time: whoever is late chains anew.
const ATTEMPTS_MAX: u32 = 200;
/// Entries inserted with one statement.
const INSERT_ROWS: usize = 500;
/// Entries read with one query.
const PAGE: i64 = 500;
const COLUMNS: &str =
    "seq, at, who, host, run, kind, target_table, key, operation, before, after, outcome, detail, prev, hash";

/// Which entries to read; empty means all.
#[derive(Debug, Clone, Default)]
pub struct EntryFilter {
    pub run: Option<String>,
    /// Of a table of one of these names.
    pub tables: Vec<String>,
    /// Any of these. Of an entry of many rows come those that have them.
    pub keys: Vec<String>,
}

impl Ledger {
    /// Adds entries to the end of the trail; their numbers are given here. All or none.
    pub async fn append(&self, entries: Vec<Entry>) -> Result<Head, LedgerError> {
        Ok(self.append_with(entries, &[]).await?)
    }

    /// The same together with other steps, in one transaction. A conflict is one of these steps: where only the trail's
    /// head has moved meanwhile, the entries are chained anew.
    pub(super) async fn append_with(&self, entries: Vec<Entry>, steps: &[Step]) -> Result<Head, StoreError> {
        for attempt in 0..ATTEMPTS_MAX {
            let head = self.head().await.map_err(StoreError::Failed)?;
            let mut next = head.clone();
            let mut places = Vec::with_capacity(entries.len());
            for entry in &entries {
                let prev = next.hash;
                let seq = next.seq + 1;
                next = Head { seq, hash: entry.hash_at(seq, &prev) };
                places.push(Place { entry, seq, prev, hash: next.hash.clone() });
            }
            let mut all = vec![Step::one_change(
                "UPDATE trueup_audit_head SET seq = $1, hash = $2 WHERE seq = $3 AND hash = $4",
                vec![
                    Cell::int(next.seq),
                    Cell::text(&next.hash),
                    Cell::int(head.seq),
                    Cell::text(&head.hash),
                ],
            )];
            all.extend(places.chunks(INSERT_ROWS).map(insert));
            all.extend(steps.iter().cloned());
            match self.store.run(all).await {
                Ok(_) => return Ok(next),
                // The first step takes the head.
                Err(StoreError::Conflict(0)) => {
                    tokio::time::sleep(Duration::from_millis(u64::from(attempt.min(20)))).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Failed(LedgerError::new(
            "others have added to the trail all the time, so that this could not",
            "try again; how many programs write to this ledger?",
        )))
    }

    pub async fn head(&self) -> Result<Head, LedgerError> {
        let rows = query(self.store.as_ref(), "SELECT seq, hash FROM trueup_audit_head", Vec::new()).await?;
        let mut row = rows.into_iter().next().ok_or_else(|| {
            LedgerError::new(
                "the trail's head is gone",
                "the table trueup_audit_head was emptied by another hand",
            )
        })?;
        Ok(Head { seq: row.int(), hash: row.text() })
    }

    /// Entries behind `after`, in their order, at most so many.
    pub async fn entries(
        &self,
        after: i64,
        limit: i64,
        filter: &EntryFilter,
    ) -> Result<Vec<Link>, LedgerError> {
        let mut sql = format!("SELECT {COLUMNS} FROM trueup_audit WHERE seq > $1");
        let mut cells = vec![Cell::int(after)];
        if let Some(run) = &filter.run {
            cells.push(Cell::text(run));
            sql += &format!(" AND run = ${}", cells.len());
        }
        if !filter.tables.is_empty() {
            let places: Vec<String> =
                (1..=filter.tables.len()).map(|at| format!("${}", cells.len() + at)).collect();
            cells.extend(filter.tables.iter().map(Cell::text));
            sql += &format!(" AND target_table IN ({})", places.join(", "));
        }
        if !filter.keys.is_empty() {
            let places: Vec<String> =
                (1..=filter.keys.len()).map(|at| format!("${}", cells.len() + at)).collect();
            cells.extend(filter.keys.iter().map(Cell::text));
            sql += &format!(" AND (key IN ({})", places.join(", "));
            for key in &filter.keys {
                cells.push(Cell::text(like(key)));
                sql += &format!(" OR (kind = 'rows' AND detail LIKE ${} ESCAPE '!')", cells.len());
            }
            sql += ")";
        }
        cells.push(Cell::int(limit));
        sql += &format!(" ORDER BY seq LIMIT ${}", cells.len());
        Ok(query(self.store.as_ref(), sql, cells).await?.into_iter().map(link).collect())
    }

    /// Calls `each` with every entry that fits, page by page.
    pub async fn for_each_entry(
        &self,
        filter: &EntryFilter,
        mut each: impl FnMut(Link) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let mut after = i64::MIN;
        loop {
            let page = self.entries(after, PAGE, filter).await?;
            let Some(last) = page.last().map(|link| link.entry.seq) else { return Ok(()) };
            after = last;
            for Link { entry, prev, hash } in page {
                let parts = if filter.keys.is_empty() { vec![entry] } else { entry.split(&filter.keys) };
                for entry in parts {
                    each(Link { entry, prev: prev.clone(), hash: hash.clone() })?;
                }
            }
        }
    }

    /// Reads the whole trail, and the record of every run that it has sealed, all of one moment.
    pub async fn verify(&self, noted: Option<Head>) -> Result<Verification, LedgerError> {
        self.at_this_moment().await?.verify_here(noted).await
    }

    /// The same of a ledger that does not change meanwhile.
    pub(super) async fn verify_here(&self, noted: Option<Head>) -> Result<Verification, LedgerError> {
        let head = self.head().await?;
        let mut verifier = Verifier::new(noted);
        self.for_each_entry(&EntryFilter::default(), |link| {
            verifier.push(&link);
            Ok(())
        })
        .await?;
        let sealed = verifier.sealed().clone();
        let mut verification = verifier.finish(Some(&head));
        for (run, detail) in sealed {
            let Some(seal) = seal_of(&detail) else { continue };
            // A run that retention has removed has no record any more.
            if self.fingerprint(&run).await?.is_some_and(|now| now != seal) {
                verification.faults.push(Fault::Record { run });
            }
        }
        Ok(verification)
    }
}

/// A pattern for texts of JSON that hold this one. A hash may stand among others in one string.
fn like(key: &str) -> String {
    let hash = key.len() == HASH_DIGITS && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    let json = if hash { key.to_owned() } else { serde_json::to_string(key).unwrap_or_default() };
    let mut pattern = String::from("%");
    for letter in json.chars() {
        if matches!(letter, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(letter);
    }
    pattern + "%"
}

/// Where an entry is to stand.
struct Place<'e> {
    entry: &'e Entry,
    seq: i64,
    prev: String,
    hash: String,
}

fn insert(added: &[Place<'_>]) -> Step {
    let cells = added.iter().flat_map(|place| {
        let e = place.entry;
        let texts = [
            &e.at,
            &e.who,
            &e.host,
            &e.run,
            &e.kind,
            &e.table,
            &e.key,
            &e.operation,
            &e.before,
            &e.after,
            &e.outcome,
            &e.detail,
            &place.prev,
            &place.hash,
        ];
        std::iter::once(Cell::int(place.seq)).chain(texts.map(Cell::text))
    });
    let cells: Vec<Cell> = cells.collect();
    Step::execute(format!("INSERT INTO trueup_audit ({COLUMNS}) VALUES {}", places(added.len(), 15)), cells)
}

fn link(mut row: Row) -> Link {
    Link {
        entry: Entry {
            seq: row.int(),
            at: row.text(),
            who: row.text(),
            host: row.text(),
            run: row.text(),
            kind: row.text(),
            table: row.text(),
            key: row.text(),
            operation: row.text(),
            before: row.text(),
            after: row.text(),
            outcome: row.text(),
            detail: row.text(),
        },
        prev: row.text(),
        hash: row.text(),
    }
}
