//! What a driver gives to a locate machine and gets from it, besides messages.

use super::classify::Finding;
use super::message::{MissingRun, Window};
use crate::merkle::RootDigest;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Source,
    Target,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct LocateOptions {
    /// Target: the source may announce long stretches without target rows by their bounds; the proof then waits
    /// until they are filled.
    pub bulk: bool,
    /// Target: root and count that the source has, if they are known already: they tell whether a sketch is worth sending.
    pub peer: Option<(RootDigest, u64)>,
    /// Target: bytes are dear, so that a sketch begins small.
    pub metered: bool,
    /// Target: short digests of the first round other than the usual, for tests that want them to collide.
    pub first_window: Option<Window>,
}

/// What one message, or one [`Locator::resume`], has brought.
#[derive(Debug, Default)]
pub struct Step {
    /// Target: differing rows, in key order over the steps of a round.
    pub findings: Vec<Finding>,
    /// Target: stretches of the source that face no row here.
    pub missing_runs: Vec<MissingRun>,
    /// Target: findings wait; call [`Locator::resume`] before the next message.
    pub more: bool,
    /// Target: what was found so far is void, and is found again in another round.
    pub restarted: bool,
    pub progress: Progress,
    pub done: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub round: u8,
    /// Segments the other side has to answer for, and the own rows in them.
    pub open_segments: u64,
    pub open_rows: u64,
    /// Own rows without a match so far.
    pub unmatched_rows: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The roots were the same from the start.
    Equal,
    /// The target's run with the findings laid over it has the source's root.
    Proved,
    /// Runs were announced by their bounds; compare the roots when they are filled.
    Deferred,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub source_root: RootDigest,
    pub target_root: RootDigest,
    pub source_count: u64,
    pub target_count: u64,
    pub proof: Proof,
    /// Rounds it took, at least one.
    pub rounds: u8,
}
