//! Filling gaps: long runs of rows that only the source has are streamed in key order and inserted as they come.

use std::collections::BTreeMap;

use super::error::AgentError;
use super::judge::Reread;
use super::proto::{StreamRun, frame::Kind};
use super::settle::{Pass, Settlement};
use super::spool::Suspect;
use super::target::MissingRun;
use super::wire::unpack_rows;
use crate::model::{Key, KeyedRow};

impl Settlement<'_, '_> {
    /// Rows that only the source has, streamed in key order and inserted as they come.
    pub(super) async fn missing_run(&mut self, run: MissingRun) -> Result<(), AgentError> {
        if !self.writes() {
            // Over the limit: the run is known by its count alone.
            self.target.outcome.missing += run.count;
            self.target.outcome.left += run.count;
            self.parts.add(&run.first, run.count);
            return Ok(());
        }
        self.target.link.send(Kind::StreamRun(StreamRun { run_id: run.run_id })).await?;
        let (mut arrived, mut look) = (0, true);
        loop {
            let packed = self.receive_packed().await?;
            let rows = unpack_rows(&self.target.session, &packed)?;
            if rows.is_empty() {
                break;
            }
            arrived += rows.len() as u64;
            look = self.insert_run_part(rows, look).await?;
        }
        // Rows that the source deleted since its snapshot.
        let gone = run.count.saturating_sub(arrived);
        self.target.outcome.in_flight += gone;
        self.worked += gone;
        Ok(())
    }

    /// An insert is conditional, so rows that are there by now need not be looked for: they come out as stale. Where
    /// that happens the target follows, and the next rows are looked for before they are called missing.
    async fn insert_run_part(&mut self, rows: Vec<KeyedRow>, look: bool) -> Result<bool, AgentError> {
        let mut own = BTreeMap::new();
        if look {
            let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
            let found = self.target.agent.engine.fetch(&self.target.access, &keys).await?;
            own.extend(found.into_iter().map(|row| (row.key, row.row)));
            self.target.outcome.target_rows_reread += rows.len() as u64;
        }
        self.target.outcome.source_rows_reread += rows.len() as u64;
        let found = own.len();
        let rereads: Vec<Reread> = rows
            .into_iter()
            .map(|KeyedRow { key, row }| {
                let digest = self.target.session.row_digest(key.as_bytes(), row.as_bytes());
                let target = own.remove(&key);
                let suspect = Suspect { key, source: Some(digest), target: None, origin: Some(digest) };
                Reread { suspect, source: Some(row), target }
            })
            .collect();
        if found > 0 {
            self.judge(rereads, Pass::Confirm).await?;
            return Ok(true);
        }
        let before = self.again.len();
        self.confirm_all(rereads, Pass::Confirm).await?;
        Ok(self.again.len() > before)
    }
}
