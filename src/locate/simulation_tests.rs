//! Thousands of seeded conversations over a link that does what links do, and over one that does what none should: each
//! ends in the right answer or in an error, never in a wrong answer.

use std::collections::VecDeque;

use super::cases::{Random, Rows, assert_right, drift, locators, metered, plain, table, without};
use super::duet::Report;
use super::*;
use crate::merkle::DigestRun;

/// What happens to one message of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Some bytes are others.
    Damaged,
    /// The end is missing, or there is more behind it.
    Truncated,
    Lengthened,
    /// It and all behind it are gone, as of a connection that broke.
    Cut,
    Lost,
    Doubled,
    /// It comes behind the next one.
    Late,
    /// Another message comes in its place, one that was said before or in another conversation.
    Replaced,
}

const FAULTS: [Fault; 9] = [
    Fault::None,
    Fault::Damaged,
    Fault::Truncated,
    Fault::Lengthened,
    Fault::Cut,
    Fault::Lost,
    Fault::Doubled,
    Fault::Late,
    Fault::Replaced,
];

/// One direction of a link: what was sent arrives in its order, at any time.
#[derive(Default)]
struct Way {
    queue: VecDeque<Vec<u8>>,
    held: Option<Vec<u8>>,
    cut: bool,
}

struct Link<'a> {
    ways: [Way; 2],
    fault: Fault,
    /// The message that it happens to.
    hit: u64,
    sent: u64,
    said: Vec<Vec<u8>>,
    foreign: &'a [Vec<u8>],
    random: Random,
}

impl Link<'_> {
    fn send(&mut self, way: usize, mut bytes: Vec<u8>) {
        let fault = if self.sent == self.hit { self.fault } else { Fault::None };
        self.sent += 1;
        self.said.push(bytes.clone());
        let random = &mut self.random;
        let mut below = |bound: usize| usize::try_from(random.below(bound as u64)).unwrap();
        let Way { queue, held, cut } = &mut self.ways[way];
        if *cut {
            return;
        }
        match fault {
            Fault::None | Fault::Late => {}
            Fault::Damaged => {
                for _ in 0..if below(2) == 0 { 1 } else { 40 } {
                    let at = below(bytes.len());
                    bytes[at] ^= u8::try_from(1 + below(255)).unwrap();
                }
            }
            Fault::Truncated => bytes.truncate(below(bytes.len())),
            Fault::Lengthened => bytes.extend((0..=below(20)).map(|_| 0)),
            Fault::Cut => {
                *cut = true;
                return;
            }
            Fault::Lost => return,
            Fault::Doubled => queue.push_back(bytes.clone()),
            Fault::Replaced => {
                let all = self.said.len() + self.foreign.len();
                bytes = self.said.iter().chain(self.foreign).nth(below(all)).unwrap().clone();
            }
        }
        if fault == Fault::Late {
            *held = Some(bytes);
        } else {
            queue.push_back(bytes);
            queue.extend(held.take());
        }
    }
}

/// Everything that the two said; the answer of the target, where it came to one.
fn converse(
    source: &mut Locator<DigestRun>,
    target: &mut Locator<DigestRun>,
    link: &mut Link<'_>,
) -> Result<Report, LocateError> {
    let mut report = Report::default();
    loop {
        for (way, from) in [(0, &mut *target), (1, &mut *source)] {
            while let Some(message) = from.next_outgoing()? {
                link.send(way, message.encode());
            }
        }
        // Which direction is the quicker one is a matter of chance.
        let first = usize::try_from(link.random.below(2)).unwrap();
        let Some(way) = [first, 1 - first].into_iter().find(|way| !link.ways[*way].queue.is_empty()) else {
            break;
        };
        let to = if way == 0 { &mut *source } else { &mut *target };
        for _ in 0..=link.random.below(3) {
            let Some(bytes) = link.ways[way].queue.pop_front() else { break };
            let mut step = to.receive(Message::decode(&bytes)?)?;
            loop {
                if step.restarted {
                    report.findings.clear();
                    report.missing_runs.clear();
                }
                report.findings.extend(step.findings);
                report.missing_runs.extend(step.missing_runs);
                if !step.more {
                    break;
                }
                step = to.resume()?;
            }
        }
    }
    report.outcome = target.outcome();
    Ok(report)
}

/// Two tables that differ in few rows or many, by holes or all over, with either side the larger.
fn tables(random: &mut Random) -> (Rows, Rows) {
    let rows = [30, 300, 2_100, 2_400][usize::try_from(random.below(4)).unwrap()];
    let source = plain(rows + random.below(rows));
    let much = [0, 3, 60, 900][usize::try_from(random.below(4)).unwrap()];
    let mut target = if much == 0 { source.clone() } else { drift(&source, random, much) };
    if random.below(4) == 0 {
        let from = random.below(rows * 3);
        target = without(&target, from..from + random.below(rows * 2));
    }
    if random.below(2) == 0 { (source, target) } else { (target, source) }
}

#[test]
fn thousands_of_conversations_end_in_the_right_answer_or_in_an_error() {
    const CASES: u64 = 4_500;
    let mut foreign: Vec<Vec<u8>> = Vec::new();
    let mut ends = [[0u32; 2]; FAULTS.len()];
    for seed in 0..CASES {
        let mut random = Random(seed);
        let (source, target) = tables(&mut random);
        let options = if seed % 2 == 0 { LocateOptions::default() } else { metered() };
        let (mut from, mut to) = locators(&table(&source), &table(&target), options);
        let number = usize::try_from(seed).unwrap() % FAULTS.len();
        let fault = FAULTS[number];
        let early = random.below(2) == 0;
        let hit = random.below(if early { 3 } else { 12 });
        let mut link = Link {
            ways: Default::default(),
            fault,
            hit,
            sent: 0,
            said: Vec::new(),
            foreign: &foreign,
            random,
        };
        let case = format!("seed {seed}, {fault:?} at {hit}");
        let told = converse(&mut from, &mut to, &mut link);
        let struck = fault != Fault::None && link.sent > hit;
        let believed = match &told {
            Err(error) => {
                assert!(struck, "{case}: {error}");
                false
            }
            Ok(report) => match report.outcome {
                // Only the rows themselves will prove or disprove what was named by its bounds.
                Some(outcome) if outcome.proof != Proof::Deferred || !struck => {
                    assert_right(report, &source, &target, &case);
                    true
                }
                outcome => {
                    assert!(struck, "{case}: {outcome:?}");
                    false
                }
            },
        };
        ends[number][usize::from(believed)] += u32::from(struck || fault == Fault::None);
        let said = link.said;
        // Messages of other conversations, for those that come.
        foreign.extend(said.into_iter().filter(|message| message.len() < 4_096));
        let surplus = foreign.len().saturating_sub(300);
        foreign.drain(..surplus);
    }
    let [untouched, faulty @ ..] = &ends;
    assert_eq!(*untouched, [0, u32::try_from(CASES).unwrap() / 9]);
    for (fault, [refused, believed]) in FAULTS.iter().skip(1).zip(faulty) {
        println!("{fault:?}: {refused} refused, {believed} right all the same");
        assert!(*refused > 50, "{fault:?}: {refused} refused, {believed} right");
    }
}

/// What a peer makes up, word by word: no message of any bytes moves either side to an answer.
#[test]
fn made_up_messages_are_never_an_answer() {
    let (source, target) = (table(&plain(3_000)), table(&plain(2_990)));
    let mut refused = 0;
    for seed in 0..3_000u64 {
        let mut random = Random(seed);
        let (mut from, mut to) = locators(&source, &target, LocateOptions::default());
        for _ in 0..4 {
            let mut bytes = vec![1, u8::try_from(1 + random.below(13)).unwrap()];
            let most = [4, 40, 400][usize::try_from(random.below(3)).unwrap()];
            let length = random.below(most);
            let small = random.below(2) == 0;
            bytes.extend(
                (0..length).map(|_| u8::try_from(random.below(if small { 4 } else { 256 })).unwrap()),
            );
            let Ok(message) = Message::decode(&bytes) else {
                refused += 1;
                continue;
            };
            for side in [&mut from, &mut to] {
                refused += u32::from(side.receive(message.clone()).is_err());
                assert!(side.outcome().is_none(), "seed {seed}: {}", message.name());
            }
        }
    }
    assert!(refused > 3_000, "{refused}");
}
