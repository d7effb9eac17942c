//! A reader's rows, on their way into the sinks of the places that it reads.

use super::{RawBatch, RowError, RowSink, RowSinks};

/// The sink of the place that a reader is at.
pub(super) struct Places<'s> {
    sinks: &'s RowSinks,
    sink: Option<Box<dyn RowSink>>,
}

impl<'s> Places<'s> {
    pub(super) fn new(sinks: &'s RowSinks) -> Self {
        Self { sinks, sink: None }
    }

    /// Another sink, unless the reader goes on where it was.
    pub(super) fn sink(&mut self, goes_on: bool) -> &mut dyn RowSink {
        if !goes_on {
            self.end();
        }
        self.sink.get_or_insert_with(|| (self.sinks)()).as_mut()
    }

    fn end(&mut self) {
        if let Some(mut sink) = self.sink.take() {
            sink.finish();
        }
    }

    /// Every row was read.
    pub(super) fn finish(mut self) {
        self.end();
    }
}

/// Encodes the rows here and now; `false` where nobody wants more.
pub(super) fn push_all(batch: &dyn RawBatch, sink: &mut dyn RowSink) -> Result<bool, RowError> {
    let mut wanted = true;
    batch.encode(&mut |key, row| wanted = wanted && sink.push(key, row))?;
    Ok(wanted)
}
