//! Rows outside of the run's condition: a row that one side lacks may be there nevertheless, and then it is changed, neither
//! missing nor extra.

use std::collections::BTreeSet;

use super::super::compare::reread::{Finding, Reread};
use super::super::compare::suspects::Suspect;
use super::super::error::AgentError;
use super::super::target::Target;
use super::row_requests::{How, RowRequests};
use crate::model::{Key, Plan};

/// The run is about the rows of a condition.
pub(super) fn has_condition(plan: &Plan) -> bool {
    plan.is_filtered()
}

pub(super) fn is_one_sided(reread: &Reread) -> bool {
    reread.source.is_some() != reread.target.is_some()
}

/// Reads these without the condition. Beside them those that were not answered.
pub(super) async fn read_outside(
    target: &mut Target<'_>,
    requests: &mut RowRequests,
    suspects: Vec<Suspect>,
) -> Result<(Vec<Reread>, Vec<Suspect>), AgentError> {
    let how = How { unfiltered: true, ..How::default() };
    let request = requests.send(target, suspects, how).await?;
    let (rereads, unanswered) = requests.receive(target, request, how).await?;
    let (missed, mut found): (Vec<Reread>, Vec<Reread>) = rereads.into_iter().partition(|reread| {
        let [source, target] = reread.unproven;
        (source && reread.source.is_none()) || (target && reread.target.is_none())
    });
    let mut searched: Vec<Suspect> = missed.into_iter().map(|reread| reread.suspect).collect();
    while !searched.is_empty() {
        let (rereads, rest) = RowRequests::search(target, searched, how).await?;
        found.extend(rereads);
        searched = rest;
    }
    Ok((decided_by_condition(target, requests, found).await?, unanswered))
}

/// Of rows read without the condition: those that are equal may have come to lie inside of it meanwhile, so they are
/// read once more under it. All others of which a side has the row only now have it outside.
async fn decided_by_condition(
    target: &mut Target<'_>,
    requests: &mut RowRequests,
    rereads: Vec<Reread>,
) -> Result<Vec<Reread>, AgentError> {
    let equal = rereads.iter().filter(|reread| reread.source.is_some() && reread.source == reread.target);
    let mut suspects: Vec<Suspect> = equal.map(|reread| reread.suspect.clone()).collect();
    let mut decided = Vec::with_capacity(rereads.len());
    while !suspects.is_empty() {
        let request = requests.send(target, suspects, How::default()).await?;
        let (again, rest) = requests.receive(target, request, How::default()).await?;
        decided.extend(again.into_iter().filter(|reread| reread.source.is_some() && reread.target.is_some()));
        suspects = rest;
    }
    let inside: BTreeSet<Key> = decided.iter().map(|reread| reread.suspect.key.clone()).collect();
    for mut reread in rereads.into_iter().filter(|reread| !inside.contains(&reread.suspect.key)) {
        reread.mark_outside(&target.key);
        decided.push(reread);
    }
    Ok(decided)
}

/// Of these rows, those that are stable and that one side lacks are read without the condition.
pub(super) async fn with_outside(
    target: &mut Target<'_>,
    requests: &mut RowRequests,
    rereads: Vec<Reread>,
) -> Result<Vec<Reread>, AgentError> {
    let stable = |reread: &Reread| is_one_sided(reread) && reread.finding(&target.key) == Finding::Stable;
    let (one_sided, mut all): (Vec<Reread>, Vec<Reread>) = rereads.into_iter().partition(stable);
    let mut suspects: Vec<Suspect> =
        one_sided.into_iter().map(|reread| reread.renewed(&target.key)).collect();
    while !suspects.is_empty() {
        let (found, rest) = read_outside(target, requests, suspects).await?;
        all.extend(found);
        suspects = rest;
    }
    Ok(all)
}
