//! Rows that the database refused because of other rows (foreign keys, unique values): they are tried again as long as that
//! helps, then exchanged all at once.

use super::super::compare::balance::Conclusion;
use super::super::compare::reread::Finding;
use super::super::compare::suspects::Suspect;
use super::super::error::AgentError;
use super::super::target::Target;
use super::outside::{has_condition, with_outside};
use super::passes::Passes;
use super::recheck::Pass;
use super::row_requests::How;
use super::settle::Settlement;
use crate::model::PermittedChanges;

/// Rounds over the refused rows.
const ROUNDS_MAX: u32 = 16;
/// Rows that can be exchanged in one transaction.
const EXCHANGE_MAX: usize = 10_000;
/// Rows set aside that are read from the spool together.
const SET_ASIDE_TOGETHER: usize = 500;

pub(super) async fn retry_refused(
    target: &mut Target<'_>,
    settlement: &mut Settlement<'_>,
    passes: &mut Passes,
) -> Result<(), AgentError> {
    for _ in 0..ROUNDS_MAX {
        let before = settlement.rows_refused();
        if before == 0 || settlement.writer().ended().is_some() {
            break;
        }
        let refused = settlement.take_refused(target);
        passes.pass(target, settlement, refused, Pass::Retry).await?;
        if settlement.rows_refused() >= before {
            break;
        }
    }
    if settlement.rows_refused() == 0 {
        return Ok(());
    }
    let mut reader = settlement.take_refused(target).read()?;
    let ended = settlement.writer().ended().map(str::to_owned);
    if ended.is_none() {
        let stuck = reader.next_chunk(EXCHANGE_MAX)?;
        exchange(target, settlement, passes, stuck).await?;
    }
    let reason = ended.as_deref().unwrap_or("refused because of other rows of the target");
    loop {
        let rest = reader.next_chunk(SET_ASIDE_TOGETHER)?;
        if rest.is_empty() {
            return Ok(());
        }
        for suspect in rest {
            settlement.verdicts().set_aside_suspect(&suspect, reason)?;
        }
    }
}

/// Updates that exchange unique values block each other; deleting and inserting them in one transaction does not.
async fn exchange(
    target: &mut Target<'_>,
    settlement: &mut Settlement<'_>,
    passes: &mut Passes,
    mut stuck: Vec<Suspect>,
) -> Result<(), AgentError> {
    let (mut changes, mut decided_by) = (PermittedChanges::default(), Vec::new());
    let how = How::default();
    let has_condition = has_condition(&target.task.plan);
    let requests = passes.requests();
    while !stuck.is_empty() {
        let rest = stuck.split_off(stuck.len().min(requests.keys()));
        let request = requests.send(target, std::mem::replace(&mut stuck, rest), how).await?;
        let (mut rereads, unanswered) = requests.receive(target, request, how).await?;
        stuck.splice(0..0, unanswered);
        if has_condition {
            rereads = with_outside(target, requests, rereads).await?;
        }
        for reread in rereads {
            match reread.finding(&target.key) {
                Finding::Unproven | Finding::Changing | Finding::Following => {
                    // It moved, or it cannot be told: nothing is done to it here.
                    settlement.look_again(&reread.renewed_where_known(&target.key))?;
                }
                Finding::Settled => settlement.in_flight(&reread, Conclusion::InFlight)?,
                Finding::Stable => {
                    if let Some(change) = settlement.permitted(&reread)? {
                        changes.push(change);
                        decided_by.push(reread);
                    }
                }
            }
        }
    }
    settlement.exchange(changes, decided_by).await
}
