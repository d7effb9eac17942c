//! An engine whose lookups by key do not find some rows, as where a key is spelled otherwise than it is asked for.

use std::sync::Arc;

use async_trait::async_trait;
use trueup::engine::{Engine, EngineError, Lookup};
use trueup::model::{Key, TableAccess};

use super::wrapped::{Wrapped, Wrapper};

pub(crate) type BlindEngine = Wrapped<Blind>;

pub(crate) struct Blind {
    inner: Arc<dyn Engine>,
    /// Of so many keys, one is found.
    finds_one_in: usize,
}

impl Wrapped<Blind> {
    /// Finds nothing.
    pub(crate) fn wholly(inner: Arc<dyn Engine>) -> Arc<Self> {
        Arc::new(Self(Blind { inner, finds_one_in: usize::MAX }))
    }

    /// Finds the rows of every other key that it is asked for.
    pub(crate) fn half(inner: Arc<dyn Engine>) -> Arc<Self> {
        Arc::new(Self(Blind { inner, finds_one_in: 2 }))
    }
}

#[async_trait]
impl Wrapper for Blind {
    fn inner(&self) -> &Arc<dyn Engine> {
        &self.inner
    }

    async fn lookup(&self, access: &Arc<TableAccess>, keys: &[Key]) -> Result<Lookup, EngineError> {
        let mut lookup = Lookup::default();
        for (at, keys) in keys.chunks(1).enumerate() {
            if at % self.finds_one_in == self.finds_one_in - 1 {
                lookup.extend(self.inner.lookup(access, keys).await?);
            } else {
                lookup.unproven.extend(keys.iter().cloned());
            }
        }
        Ok(lookup)
    }
}
