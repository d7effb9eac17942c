//! A batch on its way to the database.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::super::compare::missing_rows::Missing;
use super::super::compare::reread::Reread;
use super::super::trail::Recorded;
use crate::engine::EngineError;
use crate::model::{ChangeOutcome, PermittedChanges, PermittedInserts};

/// A batch that is being written.
pub(crate) struct Writing {
    pub(crate) batch: Batch,
    pub(crate) work: AbortOnDropHandle<Result<Vec<ChangeOutcome>, EngineError>>,
}

/// What is written, and the rows that it was decided by.
pub(crate) enum Batch {
    Changes(Arc<Recorded<PermittedChanges>>, Vec<Reread>),
    Inserts(Arc<Recorded<PermittedInserts>>, Missing),
}
