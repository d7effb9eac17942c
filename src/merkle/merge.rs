//! Merges sorted stretches with a tournament tree: one comparison per doubling of the number of sources.

use super::coding::sort_prefix;
use super::digest::RowDigest;
use super::error::RunError;
use super::segment::Cursor;

/// A source that wins so often in turn is taken to be apart from the others for a while.
const WINS: u32 = 16;

struct Source<'a> {
    number: usize,
    cursor: Cursor<'a>,
    /// What is compared first; `None` when the source is used up.
    head: Option<u64>,
}

/// Hands the entries of all sources over in key order (equal keys one after the other), each with the number that its cursor
/// came with and its place there. `shared` bytes at the start are the same in all keys.
pub(super) fn merge(
    cursors: Vec<(usize, Cursor<'_>)>,
    shared: usize,
    mut each: impl FnMut(usize, u64, &[u8], RowDigest) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let mut sources = Vec::with_capacity(cursors.len());
    for (number, mut cursor) in cursors {
        if cursor.advance()? {
            let head = Some(sort_prefix(cursor.key(), shared));
            sources.push(Source { number, cursor, head });
        }
    }
    if let [only] = sources.as_mut_slice() {
        loop {
            each(only.number, only.cursor.position(), only.cursor.key(), only.cursor.digest())?;
            if !only.cursor.advance()? {
                return Ok(());
            }
        }
    }
    if sources.is_empty() {
        return Ok(());
    }

    let count = sources.len();
    let (mut losers, mut winner) = play_all(&sources);
    let mut wins = 0;
    // Heads below this one win without a match.
    let mut unmatched = 0;
    loop {
        let source = &mut sources[winner];
        if source.head.is_none() {
            return Ok(());
        }
        each(source.number, source.cursor.position(), source.cursor.key(), source.cursor.digest())?;
        source.head =
            if source.cursor.advance()? { Some(sort_prefix(source.cursor.key(), shared)) } else { None };
        if source.head.is_some_and(|head| head < unmatched) {
            continue;
        }
        let before = winner;
        let mut node = (winner + count) / 2;
        while node > 0 {
            if beats(&sources, losers[node], winner) {
                std::mem::swap(&mut losers[node], &mut winner);
            }
            node /= 2;
        }
        wins = if unmatched == 0 && winner == before { wins + 1 } else { 0 };
        unmatched = if wins == WINS { second(&sources, &losers, winner) } else { 0 };
    }
}

/// The least head of all but the winner: the second was beaten by the winner itself.
fn second(sources: &[Source<'_>], losers: &[usize], winner: usize) -> u64 {
    let nodes = std::iter::successors(Some((winner + losers.len()) / 2), |node| Some(node / 2));
    let heads = nodes.take_while(|node| *node > 0).filter_map(|node| sources[losers[node]].head);
    heads.min().unwrap_or(u64::MAX)
}

/// Plays the first tournament: the loser of each match stays at its node.
fn play_all(sources: &[Source<'_>]) -> (Vec<usize>, usize) {
    let count = sources.len();
    let mut losers = vec![0; count];
    let mut winners = vec![0; 2 * count];
    for (at, winner) in winners.iter_mut().skip(count).enumerate() {
        *winner = at;
    }
    for node in (1..count).rev() {
        let (left, right) = (winners[2 * node], winners[2 * node + 1]);
        let (winner, loser) = if beats(sources, right, left) { (right, left) } else { (left, right) };
        winners[node] = winner;
        losers[node] = loser;
    }
    (losers, winners[1])
}

fn beats(sources: &[Source<'_>], a: usize, b: usize) -> bool {
    match (sources[a].head, sources[b].head) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(x), Some(y)) if x != y => x < y,
        _ => sources[a].cursor.key() < sources[b].cursor.key(),
    }
}
