//! Filling gaps: long runs of rows that only the source has are streamed in key order and inserted as they come.

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
        let mut arrived = 0;
        loop {
            let packed = self.receive_packed().await?;
            let rows = unpack_rows(&self.target.session, &packed)?;
            if rows.is_empty() {
                break;
            }
            arrived += rows.len() as u64;
            self.insert_run_part(rows).await?;
        }
        // Rows that the source deleted since its snapshot.
        let gone = run.count.saturating_sub(arrived);
        self.target.outcome.in_flight += gone;
        self.worked += gone;
        Ok(())
    }

    async fn insert_run_part(&mut self, rows: Vec<KeyedRow>) -> Result<(), AgentError> {
        let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
        let own = self.target.agent.engine.fetch(&self.target.access, &keys).await?;
        let mut own: std::collections::BTreeMap<Key, _> =
            own.into_iter().map(|row| (row.key, row.row)).collect();
        self.target.outcome.source_rows_reread += rows.len() as u64;
        self.target.outcome.target_rows_reread += rows.len() as u64;
        let rereads = rows
            .into_iter()
            .map(|KeyedRow { key, row }| {
                let digest = self.target.session.row_digest(key.as_bytes(), row.as_bytes());
                let target = own.remove(&key);
                let suspect = Suspect { key, source: Some(digest), target: None, origin: Some(digest) };
                Reread { suspect, source: Some(row), target }
            })
            .collect();
        self.judge(rereads, Pass::Confirm).await
    }
}
