//! What a pass does with a suspect that was read again. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::super::compare::balance::Conclusion;
use super::super::compare::reread::Finding;

/// What a pass does with a stable suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Look again later.
    Watch,
    /// It is a difference: count it, report it, repair it.
    Confirm,
    /// It was refused before: only try to write it.
    Retry,
}

/// What is to be done with a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// A scan has to show whether the row is there.
    Search,
    InFlight(Conclusion),
    /// It is a difference.
    Confirm,
    /// It is read again in the next pass.
    LookAgain,
}

/// What the run asks of its rechecks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recheck {
    /// A row that changes is read again before it is called a difference.
    pub(super) waits: bool,
    /// The run repairs: it waits until the two sides agree, because its end must be proved. A diff need not, where it knows
    /// that a row is lag.
    pub(super) repairs: bool,
}

impl Recheck {
    pub(super) fn decide(self, finding: Finding, pass: Pass) -> Decision {
        let moves = matches!(finding, Finding::Following | Finding::Changing);
        let is_sure = !moves || !self.waits || pass == Pass::Retry;
        match finding {
            Finding::Unproven => Decision::Search,
            Finding::Settled => Decision::InFlight(Conclusion::InFlight),
            Finding::Following if !is_sure && !self.repairs => Decision::InFlight(Conclusion::Following),
            _ if is_sure && pass != Pass::Watch => Decision::Confirm,
            _ => Decision::LookAgain,
        }
    }
}

/// So much later, or as late as there is a time.
pub(super) fn after(instant: Instant, delay: Duration) -> Instant {
    // A clock holds a few hundred years.
    const LATEST: Duration = Duration::from_secs(10 * 365 * 86_400);
    instant.checked_add(delay.min(LATEST)).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_holds_still_is_a_difference_unless_nobody_waits_for_it() {
        use Decision::{Confirm, InFlight, LookAgain, Search};
        use Finding::{Changing, Following, Settled, Stable, Unproven};
        for (waits, repairs, pass) in
            (0..12).map(|n| (n & 1 != 0, n & 2 != 0, [Pass::Watch, Pass::Confirm, Pass::Retry][n / 4]))
        {
            let decide = |finding| Recheck { waits, repairs }.decide(finding, pass);
            let case = (waits, repairs, pass);
            assert_eq!(decide(Unproven), Search, "{case:?}");
            assert_eq!(decide(Settled), InFlight(Conclusion::InFlight), "{case:?}");
            let sure = if pass == Pass::Watch { LookAgain } else { Confirm };
            assert_eq!(decide(Stable), sure, "{case:?}");
            let is_awaited = waits && pass != Pass::Retry;
            assert_eq!(decide(Changing), if is_awaited { LookAgain } else { sure }, "{case:?}");
            let following = match is_awaited {
                true if repairs => LookAgain,
                true => InFlight(Conclusion::Following),
                false => sure,
            };
            assert_eq!(decide(Following), following, "{case:?}");
        }
    }
}
