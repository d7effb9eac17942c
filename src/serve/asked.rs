//! What operators ask for beside the timetable: a check now, or a repair of what it finds.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::Group;
use crate::config::{CheckKind, CheckSpec, Config, RepairPolicy};

/// More than these wait for nobody.
const WAITING_MAX: usize = 100;
/// A repair that is asked for by hand, where the check's own policy names no limit.
const UP_TO_DEFAULT: u64 = 1_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub check: String,
    /// Repair what is found, unless more rows than this would change; `None`: as the check's own policy says.
    pub up_to: Option<u64>,
    pub by: String,
}

/// First come, first served.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<VecDeque<Asked>>);

impl Queue {
    /// An error says why it is not taken.
    pub(super) fn push(&self, config: &Config, asked: Asked) -> Result<(), String> {
        let check = config.checks.get(&asked.check);
        let check = check.ok_or_else(|| "the configuration in force has no such check".to_owned())?;
        if asked.up_to.is_some() && repair_limit(check).is_none() {
            return Err("this check is not one that repairs: see repair in its configuration".to_owned());
        }
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.iter().any(|waiting| waiting.check == asked.check) {
            return Err("this was asked for already, and waits for its turn".to_owned());
        }
        if queue.len() >= WAITING_MAX {
            return Err(format!("{WAITING_MAX} other checks wait already"));
        }
        queue.push_back(asked);
        Ok(())
    }

    /// As groups of one, to be run before what is due.
    pub(super) fn take(&self, config: &Config) -> Vec<Group> {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let group = |asked: Asked| {
            let pair = config.checks.get(&asked.check)?.pair.clone();
            Some(Group { pair, checks: vec![asked.check.clone()], asked: Some(asked), ..Group::default() })
        };
        waiting.into_iter().filter_map(group).collect()
    }

    /// It could not begin yet.
    pub(super) fn again(&self, asked: Asked) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(asked);
    }
}

/// Up to how many rows an operator's repair of this check changes where nothing else is said; `None`: it repairs nothing.
pub fn repair_limit(check: &CheckSpec) -> Option<u64> {
    match (&check.kind, &check.repair) {
        (CheckKind::Rows, RepairPolicy::UpTo(rows)) => Some(*rows),
        (CheckKind::Rows, RepairPolicy::DryRun) => Some(UP_TO_DEFAULT),
        _ => None,
    }
}

/// The configuration under which this is run.
pub(super) fn with_repair(config: &Config, asked: &Asked) -> Option<Config> {
    let up_to = asked.up_to?;
    let mut config = config.clone();
    config.checks.get_mut(&asked.check)?.repair = RepairPolicy::UpTo(up_to);
    Some(config)
}
