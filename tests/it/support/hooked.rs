//! An engine that does something else just before it writes.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use trueup::engine::Engine;

use super::wrapped::{Wrapped, Wrapper};

pub(crate) type HookedEngine = Wrapped<Hooked>;

type Hook = Box<dyn FnMut(u32) + Send>;

pub(crate) struct Hooked {
    inner: Arc<dyn Engine>,
    /// Called with the number of the write, from 1.
    hook: Mutex<(u32, Hook)>,
}

impl Wrapped<Hooked> {
    pub(crate) fn before_writes(inner: Arc<dyn Engine>, hook: impl FnMut(u32) + Send + 'static) -> Arc<Self> {
        Arc::new(Self(Hooked { inner, hook: Mutex::new((0, Box::new(hook))) }))
    }
}

#[async_trait]
impl Wrapper for Hooked {
    fn inner(&self) -> &Arc<dyn Engine> {
        &self.inner
    }

    async fn before_write(&self) {
        let mut hook = self.hook.lock().unwrap();
        hook.0 += 1;
        let nth = hook.0;
        (hook.1)(nth);
    }
}
