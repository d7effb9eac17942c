//! The dashboard of a coordinator: what operators may start from its pages.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use super::Failure;
use super::live::Live;
use crate::agent::security::PeerToken;
use crate::config::ServeSpec;
use crate::dashboard::{Action, Actions, Dashboard, Offer, Progress, Settings, Tokens};
use crate::ledger::Ledger;
use crate::serve::{Asked, Coordinator, Runner, repair_limit};

#[derive(Debug)]
struct Desk<R> {
    coordinator: Arc<Coordinator<R>>,
    live: Arc<Live>,
}

#[async_trait]
impl<R: Runner + std::fmt::Debug> Actions for Desk<R> {
    async fn offers(&self) -> Vec<Offer> {
        let config = self.coordinator.config();
        let offer = |(name, check): (&String, _)| Offer { check: name.clone(), repair: repair_limit(check) };
        config.checks.iter().map(offer).collect()
    }

    async fn start(&self, action: Action, by: &str) -> Result<(), String> {
        let (check, up_to) = match action {
            Action::Check { name } => (name, None),
            Action::Repair { name, up_to } => (name, Some(up_to)),
        };
        tracing::info!(check, up_to, by, "asked for from the dashboard");
        self.coordinator.ask(Asked { check, up_to, by: by.to_owned() })
    }

    async fn progress(&self) -> Vec<Progress> {
        self.live.progress()
    }
}

/// `None` where no token guards it: there is none then.
pub(super) fn dashboard<R: Runner + std::fmt::Debug>(
    serve: &ServeSpec,
    ledger: Ledger,
    (view, operate): (Option<&str>, Option<&str>),
    coordinator: Arc<Coordinator<R>>,
    live: Arc<Live>,
) -> Result<Option<Dashboard>, Failure> {
    let operate = operate.map(|text| PeerToken::new(text, "operate_token")).transpose()?;
    let Some(view) = view.map(|text| PeerToken::new(text, "view_token")).transpose()? else {
        if operate.is_some() {
            return Err(Failure::new(
                "[serve] has an operate_token and no view_token",
                "set view_token too: it is what people log in to the dashboard with",
            ));
        }
        return Ok(None);
    };
    // Browsers name the port only where it is not the usual one.
    let public = serve.public_url.as_deref().and_then(|url| url::Url::parse(url).ok());
    let host = public.as_ref().and_then(|url| url.host_str().map(str::to_owned));
    Ok(Some(Dashboard::new(Settings {
        ledger,
        tokens: Tokens { view, operate },
        hosts: host.into_iter().collect(),
        actions: Some(Arc::new(Desk { coordinator, live })),
        now: SystemTime::now,
    })))
}
