//! Aligns two ordered lists of short digests: what is equal, and what lies between.

use std::collections::VecDeque;
use std::ops::Range;

/// Matches that are fewer than one in so many of a list that long are taken for chance: the rows then travel as
/// findings, which costs bytes and not an answer.
const WEAK: usize = 8;
/// How far apart a border may have moved in a gap and still be found, and how many tags in a row it takes.
const REACH: usize = 16;
const AGREE: usize = 2;

/// The same stretch of the table: items of the peer's list, and places on the own side (counted from its start).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) peer: Range<usize>,
    pub(super) own: Range<u64>,
}

/// Fed the own side one by one, so that it may be long: then chance alone meets a short digest once more somewhere. So
/// the same items at both ends are taken first, where a hole leaves all of them.
pub(super) struct Aligner<'a> {
    peer: &'a [u64],
    /// So many items are the same from the start on.
    prefix: usize,
    /// The last items of the own side, as many as the peer has.
    last: VecDeque<u64>,
    /// Value and place of the peer's items, without those that occur twice.
    known: Vec<(u64, usize)>,
    /// Own place where each peer item was met; more than once is as good as never.
    met: Vec<Met>,
    own_len: u64,
}

#[derive(Clone, Copy)]
enum Met {
    Never,
    Once(u64),
    Often,
}

impl<'a> Aligner<'a> {
    pub(super) fn new(peer: &'a [u64]) -> Self {
        let mut known: Vec<(u64, usize)> = peer.iter().copied().zip(0..).collect();
        known.sort_unstable();
        let known =
            known.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() == 1).flatten().copied().collect();
        let last = VecDeque::with_capacity(peer.len() + 1);
        Self { peer, prefix: 0, last, known, met: vec![Met::Never; peer.len()], own_len: 0 }
    }

    pub(super) fn feed(&mut self, own: u64) {
        if let Ok(found) = self.known.binary_search_by_key(&own, |item| item.0)
            && let Some(met) = self.known.get(found).and_then(|item| self.met.get_mut(item.1))
        {
            *met = match met {
                Met::Never => Met::Once(self.own_len),
                _ => Met::Often,
            };
        }
        if self.own_len == self.prefix as u64 && self.peer.get(self.prefix) == Some(&own) {
            self.prefix += 1;
        }
        self.last.push_back(own);
        if self.last.len() > self.peer.len() {
            self.last.pop_front();
        }
        self.own_len += 1;
    }

    /// What lies between the matches, in order; at least one side of each piece is not empty.
    pub(super) fn gaps(self) -> Vec<Piece> {
        let peer_len = self.peer.len();
        let shorter = peer_len.min(usize::try_from(self.own_len).unwrap_or(usize::MAX));
        let both_ends = self.last.iter().rev().zip(self.peer.iter().rev());
        let suffix = both_ends.take(shorter - self.prefix).take_while(|(own, peer)| own == peer).count();
        let (peer_end, own_end) = (peer_len - suffix, self.own_len - suffix as u64);

        let candidates: Vec<(usize, u64)> = (self.prefix..peer_end)
            .filter_map(|peer| match self.met.get(peer) {
                Some(Met::Once(own)) if (self.prefix as u64..own_end).contains(own) => Some((peer, *own)),
                _ => None,
            })
            .collect();
        let middle = longest_increasing(&candidates);
        let start = (0..self.prefix).map(|at| (at, at as u64));
        let end = (peer_end..peer_len).zip(own_end..self.own_len);
        let mut matches: Vec<(usize, u64)> = start.chain(middle).chain(end).collect();
        if shorter >= WEAK && matches.len() < shorter / WEAK {
            matches.clear();
        }
        let mut gaps = Vec::new();
        let (mut peer, mut own) = (0, 0);
        for (peer_at, own_at) in matches.into_iter().chain([(peer_len, self.own_len)]) {
            if peer < peer_at || own < own_at {
                gaps.push(Piece { peer: peer..peer_at, own: own..own_at });
            }
            (peer, own) = (peer_at + 1, own_at + 1);
        }
        gaps
    }
}

/// The longest chain of pairs that grows on both sides.
fn longest_increasing(pairs: &[(usize, u64)]) -> Vec<(usize, u64)> {
    // `tails[n]` is the pair that ends the chain of length n + 1 with the least own place.
    let mut tails: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (at, pair) in pairs.iter().enumerate() {
        let place = tails.partition_point(|tail| pairs[*tail].1 < pair.1);
        before.push(place.checked_sub(1).map(|shorter| tails[shorter]));
        match tails.get_mut(place) {
            Some(tail) => *tail = at,
            None => tails.push(at),
        }
    }
    let mut chain = Vec::with_capacity(tails.len());
    let mut next = tails.last().copied();
    while let Some(at) = next {
        chain.push(pairs[at]);
        next = before[at];
    }
    chain.reverse();
    chain
}

/// Splits a gap where both lists show the same border, by the nodes' tags. Both lists are not empty, and neither is
/// either side of any piece: the ends of the gap are common borders already.
pub(super) fn split_by_tags(peer: &[u8], own: &[u8]) -> Vec<(Range<usize>, Range<usize>)> {
    let mut pieces = Vec::new();
    let (mut p, mut o) = (0, 0);
    while p < peer.len() && o < own.len() {
        let Some((p_end, o_end)) = next_border(peer, own, p, o) else { break };
        pieces.push((p..p_end, o..o_end));
        (p, o) = (p_end, o_end);
    }
    if p < peer.len() || o < own.len() {
        // One side has ended: what is left of the other belongs to the last piece.
        match pieces.last_mut() {
            Some((last_peer, last_own)) if p == peer.len() || o == own.len() => {
                last_peer.end = peer.len();
                last_own.end = own.len();
            }
            _ => pieces.push((p..peer.len(), o..own.len())),
        }
    }
    pieces
}

/// The nearest places behind `p` and `o` where the lists agree again; a border is common where the nodes that end
/// there carry the same tag.
fn next_border(peer: &[u8], own: &[u8], p: usize, o: usize) -> Option<(usize, usize)> {
    for apart in 0..=2 * REACH {
        for skip_peer in apart.saturating_sub(REACH)..=apart.min(REACH) {
            let (at_peer, at_own) = (p + skip_peer, o + (apart - skip_peer));
            let needed = if apart == 0 { 1 } else { AGREE };
            let agree = (0..needed).all(|next| match (peer.get(at_peer + next), own.get(at_own + next)) {
                (Some(a), Some(b)) => a == b,
                (None, None) => next > 0,
                _ => false,
            });
            if agree {
                return Some((at_peer + 1, at_own + 1));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(peer: &[u64], own: &[u64]) -> Vec<(Range<usize>, Range<u64>)> {
        let mut aligner = Aligner::new(peer);
        own.iter().for_each(|item| aligner.feed(*item));
        aligner.gaps().into_iter().map(|piece| (piece.peer, piece.own)).collect()
    }

    #[test]
    fn what_lies_between_matches_is_a_gap() {
        assert_eq!(gaps(&[1, 2, 3], &[1, 2, 3]), []);
        assert_eq!(gaps(&[1, 2, 3], &[1, 9, 3]), [(1..2, 1..2)]);
        assert_eq!(gaps(&[1, 2, 3], &[1, 3]), [(1..2, 1..1)]);
        assert_eq!(gaps(&[1, 3], &[1, 2, 3, 4]), [(1..1, 1..2), (2..2, 3..4)]);
        assert_eq!(gaps(&[], &[1, 2]), [(0..0, 0..2)]);
        assert_eq!(gaps(&[1, 2], &[]), [(0..2, 0..0)]);
    }

    #[test]
    fn matches_keep_their_order() {
        assert_eq!(gaps(&[5, 1, 2, 3], &[1, 2, 3, 5]), [(0..1, 0..0), (4..4, 3..4)]);
    }

    #[test]
    fn what_occurs_twice_matches_nothing() {
        assert_eq!(gaps(&[1, 7, 7, 3], &[2, 7, 4]), [(0..4, 0..3)]);
        assert_eq!(gaps(&[1, 7, 3], &[2, 7, 7, 4]), [(0..3, 0..4)]);
    }

    #[test]
    fn a_hole_is_told_from_both_ends_though_short_digests_collide() {
        assert_eq!(gaps(&[1, 7, 7, 3], &[1, 7, 3]), [(2..3, 2..2)]);
        assert_eq!(gaps(&[1, 2, 8, 9], &[1, 2, 9, 2, 8, 1, 8, 9]), [(2..2, 2..6)]);
        assert_eq!(gaps(&[7, 7], &[7, 7, 7]), [(2..2, 2..3)]);
        assert_eq!(gaps(&[7, 7, 7], &[7, 7]), [(2..3, 2..2)]);
    }

    #[test]
    fn one_match_among_many_is_chance() {
        let peer: Vec<u64> = (0..20).collect();
        let mut own: Vec<u64> = (100..120).collect();
        own[7] = 9;
        assert_eq!(gaps(&peer, &own), [(0..20, 0..20)]);
    }

    #[test]
    fn gaps_are_split_at_common_borders() {
        assert_eq!(split_by_tags(&[1, 2, 3], &[1, 2, 3]), [(0..1, 0..1), (1..2, 1..2), (2..3, 2..3)]);
        // The peer lost the border 2: its node joins what ends at 3.
        assert_eq!(split_by_tags(&[1, 3, 4], &[1, 2, 3, 4]), [(0..1, 0..1), (1..2, 1..3), (2..3, 3..4)]);
        assert_eq!(split_by_tags(&[1], &[2, 3]), [(0..1, 0..2)]);
        assert_eq!(split_by_tags(&[1, 2], &[1]), [(0..2, 0..1)]);
    }

    #[test]
    fn pieces_cover_both_lists_and_are_never_empty() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..5000 {
            let mut list = |alphabet| -> Vec<u8> {
                (0..=random(30)).map(|_| u8::try_from(random(alphabet)).unwrap()).collect()
            };
            let (peer, own) = (list(4), list(4));
            let (mut p, mut o) = (0, 0);
            for (peer_piece, own_piece) in split_by_tags(&peer, &own) {
                assert_eq!((peer_piece.start, own_piece.start), (p, o));
                assert!(!peer_piece.is_empty() && !own_piece.is_empty());
                (p, o) = (peer_piece.end, own_piece.end);
            }
            assert_eq!((p, o), (peer.len(), own.len()));
        }
    }
}
