//! The dashboard: what the ledger knows, as pages for a browser. They are made here, need no script to be read, and load
//! nothing from elsewhere.
//!
//! Invariants:
//! - Nothing is shown to who has not shown a token; nothing is started without the right to operate.
//! - A request that changes anything carries the session's own word (`gate`), and comes from one of our own pages.
//! - No inline style or script: the policy that browsers are told has no exception, and pictures are drawn with classes.
//! - Whatever names and keys hold is text (`look::t`).
//! - The clock is an argument.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

mod act;
mod alerts;
mod audit;
mod checks;
mod gate;
mod look;
mod overview;
mod picture;
mod run;
mod runs;
mod session;
mod steps;
#[cfg(test)]
mod tests;

pub use session::Right;

use session::{Limiter, Sessions};

use crate::agent::security::PeerToken;
use crate::ledger::Ledger;

/// Who may see, and who may also start something.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub view: PeerToken,
    pub operate: Option<PeerToken>,
}

/// What can be asked for from a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Runs a check now.
    Check { name: String },
    /// Runs it and repairs what it finds, unless more rows than this would change.
    Repair { name: String, up_to: u64 },
}

/// What may be asked for of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub check: String,
    /// A repair may be asked for, usually of at most so many rows.
    pub repair: Option<u64>,
}

/// A run under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub run: String,
    /// The check or table, and what is being done with it.
    pub what: String,
    /// Rows so far, and all of them where that is known.
    pub done: u64,
    pub total: Option<u64>,
}

/// Whoever can start what operators ask for.
#[async_trait]
pub trait Actions: Send + Sync + std::fmt::Debug {
    async fn offers(&self) -> Vec<Offer>;
    /// Returns once the work is taken over, not when it is done. Errors are shown as they are.
    async fn start(&self, action: Action, by: &str) -> Result<(), String>;
    async fn progress(&self) -> Vec<Progress>;
}

/// What a dashboard is made of.
#[derive(Debug)]
pub struct Settings {
    pub ledger: Ledger,
    pub tokens: Tokens,
    /// Names by which browsers may reach it, beside `localhost` and bare addresses.
    pub hosts: Vec<String>,
    /// `None`: the dashboard only shows.
    pub actions: Option<Arc<dyn Actions>>,
    pub now: fn() -> SystemTime,
}

/// A dashboard and who is logged in to it.
#[derive(Debug, Clone)]
pub struct Dashboard(Arc<Site>);

#[derive(Debug)]
struct Site {
    settings: Settings,
    sessions: Mutex<Sessions>,
    limiter: Mutex<Limiter>,
    /// The last verification of the trail, and its time. Held while one is made: one at a time.
    verified: tokio::sync::Mutex<Option<audit::Verified>>,
}

impl Dashboard {
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Site {
            settings,
            sessions: Mutex::default(),
            limiter: Mutex::default(),
            verified: tokio::sync::Mutex::default(),
        }))
    }
}

impl Site {
    fn ledger(&self) -> &Ledger {
        &self.settings.ledger
    }

    fn now(&self) -> SystemTime {
        (self.settings.now)()
    }
}

/// All pages, from `/`. With `into_make_service_with_connect_info::<SocketAddr>` tries to log in are counted by address.
pub fn router(dashboard: Dashboard) -> Router {
    let site = dashboard.0;
    Router::new()
        .route("/", get(overview::page))
        .route("/runs", get(runs::page))
        .route("/runs/{id}", get(run::page))
        .route("/runs/{id}/{file}", get(run::download))
        .route("/checks", get(checks::page))
        .route("/check", get(checks::history))
        .route("/alerts", get(alerts::page))
        .route("/audit", get(audit::page))
        .route("/audit/verify", post(audit::verify))
        .route("/act", post(act::act))
        .route("/login", get(gate::login_page).post(gate::login))
        .route("/logout", post(gate::logout))
        .route("/style.css", get(look::style))
        .route("/live.js", get(look::script))
        .route("/favicon.svg", get(look::icon))
        .fallback(look::nothing_here)
        .layer(middleware::from_fn_with_state(Arc::clone(&site), gate::guard))
        .layer(middleware::from_fn(gate::headers))
        .with_state(site)
}
