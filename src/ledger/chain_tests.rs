//! Each entry of a chain altered, removed, exchanged, added: the damage is found and named.

use proptest::prelude::*;

use super::*;

fn chain(n: i64) -> Vec<Link> {
    let mut prev = GENESIS.to_owned();
    (1..=n)
        .map(|seq| {
            let kind = if seq == 1 { "begin" } else { "row" };
            let entry = Entry {
                seq,
                at: format!("2026-01-01T00:00:0{}.000Z", seq % 10),
                who: "ann".into(),
                run: "r1".into(),
                kind: kind.into(),
                key: format!("{seq:x}"),
                detail: "a \"quoted\"\nline".into(),
                ..Entry::default()
            };
            let link = entry.chained(&prev);
            prev.clone_from(&link.hash);
            link
        })
        .collect()
}

fn verify(links: &[Link], head: Option<Head>) -> Vec<Fault> {
    let mut verifier = Verifier::new(None);
    links.iter().for_each(|link| verifier.push(link));
    verifier.finish(head.as_ref()).faults
}

fn head(links: &[Link]) -> Option<Head> {
    links.last().map(|link| Head { seq: link.entry.seq, hash: link.hash.clone() })
}

#[test]
fn the_bytes_are_frozen() {
    let link = chain(1).remove(0);
    assert_eq!(
        link.entry.canonical(),
        r#"[1,"2026-01-01T00:00:01.000Z","ann","","r1","begin","","1","","","","","a \"quoted\"\nline"]"#
    );
    let mut bytes = GENESIS.as_bytes().to_vec();
    bytes.extend_from_slice(b"\n");
    bytes.extend_from_slice(link.entry.canonical().as_bytes());
    assert_eq!(link.hash, blake3::hash(&bytes).to_hex().to_string());
}

#[test]
fn a_whole_trail_has_no_faults() {
    for n in 0..5 {
        let links = chain(n);
        assert_eq!(verify(&links, head(&links)), []);
    }
}

fn alterations() -> Vec<fn(&mut Entry)> {
    vec![
        |e| e.at.push('x'),
        |e| e.who = "eve".into(),
        |e| e.host.push('x'),
        |e| e.run.push('x'),
        |e| e.kind = "other".into(),
        |e| e.table.push('x'),
        |e| e.key.push('0'),
        |e| e.operation.push('x'),
        |e| e.before.push('0'),
        |e| e.after.push('0'),
        |e| e.outcome.push('x'),
        |e| e.detail.push(' '),
    ]
}

/// Entries are numbered from 1.
fn seq(at: usize) -> i64 {
    i64::try_from(at).unwrap() + 1
}

proptest! {
    #[test]
    fn an_altered_entry_is_named(n in 1i64..12, at: prop::sample::Index, field: prop::sample::Index) {
        let mut links = chain(n);
        let (end, at) = (head(&links), at.index(links.len()));
        alterations()[field.index(alterations().len())](&mut links[at].entry);
        let seq = links[at].entry.seq;
        prop_assert_eq!(verify(&links, end), [Fault::Altered { seq }]);
    }

    #[test]
    fn an_altered_entry_with_a_new_hash_is_named(n in 2i64..12, at: prop::sample::Index) {
        let mut links = chain(n);
        let (end, at) = (head(&links), at.index(links.len()));
        links[at].entry.who = "eve".into();
        links[at].hash = links[at].entry.hash(&links[at].prev);
        let seq = links[at].entry.seq;
        let expected = if seq == n { Fault::Head { seq } } else { Fault::Rewritten { seq } };
        prop_assert_eq!(verify(&links, end), [expected]);
    }

    #[test]
    fn missing_entries_are_named(n in 1i64..12, from: prop::sample::Index, more in 0usize..4) {
        let mut links = chain(n);
        let (end, from) = (head(&links), from.index(links.len()));
        let to = (from + more).min(links.len() - 1);
        links.drain(from..=to);
        prop_assert_eq!(
            verify(&links, end),
            [Fault::Missing { seq: seq(from), through: seq(to) }]
        );
    }

    #[test]
    fn exchanged_entries_are_named(n in 2i64..12, a: prop::sample::Index, b: prop::sample::Index, whole: bool) {
        let mut links = chain(n);
        let (end, a, b) = (head(&links), a.index(links.len()), b.index(links.len()));
        prop_assume!(a != b);
        let (left, right) = (links[a].clone(), links[b].clone());
        if whole {
            // Their numbers alone.
            (links[a].entry.seq, links[b].entry.seq) = (right.entry.seq, left.entry.seq);
            links.sort_by_key(|link| link.entry.seq);
        } else {
            // What they say, but for their place.
            links[a].entry = Entry { seq: left.entry.seq, ..right.entry };
            links[b].entry = Entry { seq: right.entry.seq, ..left.entry };
        }
        let (a, b) = (seq(a.min(b)), seq(a.max(b)));
        let expected = [Fault::Reordered { seq: a, belongs_at: b }, Fault::Reordered { seq: b, belongs_at: a }];
        prop_assert_eq!(verify(&links, end), expected);
    }

    #[test]
    fn lines_of_an_export_out_of_order_are_named(n in 2i64..12, at: prop::sample::Index) {
        let mut links = chain(n);
        let end = head(&links);
        let at = at.index(links.len() - 1);
        links.swap(at, at + 1);
        let at = seq(at);
        let faults = verify(&links, end);
        prop_assert!(faults.contains(&Fault::Reordered { seq: at, belongs_at: at }), "{faults:?}");
        prop_assert!(!faults.iter().any(|fault| matches!(fault, Fault::Altered { .. })), "{faults:?}");
    }

    #[test]
    fn an_entry_added_by_another_hand_is_named(n in 1i64..12) {
        let mut links = chain(n);
        let end = head(&links);
        let more = Entry { seq: n + 1, ..Entry::default() }.chained(&links.last().unwrap().hash);
        links.push(more);
        prop_assert_eq!(verify(&links, end), [Fault::Added { seq: n + 1 }]);
    }

    #[test]
    fn a_trail_written_anew_does_not_pass_through_a_noted_head(n in 2i64..12, at: prop::sample::Index) {
        let links = chain(n);
        let at = at.index(links.len());
        let noted = Head { seq: links[at].entry.seq, hash: links[at].hash.clone() };
        let mut prev = GENESIS.to_owned();
        let forged: Vec<Link> = links
            .iter()
            .map(|link| {
                let link = Entry { who: "eve".into(), ..link.entry.clone() }.chained(&prev);
                prev.clone_from(&link.hash);
                link
            })
            .collect();
        for (links, faults) in [(&links, vec![]), (&forged, vec![Fault::Noted { seq: noted.seq }])] {
            let mut verifier = Verifier::new(Some(noted.clone()));
            links.iter().for_each(|link| verifier.push(link));
            prop_assert_eq!(verifier.finish(head(links).as_ref()).faults, faults);
        }
    }

    #[test]
    fn a_head_is_read_as_it_is_written(seq in 0i64..i64::MAX, hash in "[0-9a-f]{64}") {
        let head = Head { seq, hash };
        prop_assert_eq!(head.to_string().parse::<Head>(), Ok(head));
    }
}

#[test]
fn a_front_removed_without_its_checkpoint_is_missing() {
    let mut links = chain(6);
    let checkpoint = Checkpoint { through: 3, hash: links[2].hash.clone() };
    let entry = Entry {
        seq: 7,
        kind: "checkpoint".into(),
        detail: serde_json::to_string(&checkpoint).unwrap(),
        ..Entry::default()
    };
    links.push(entry.chained(&links[5].hash));
    let end = head(&links);
    assert_eq!(verify(&links, end.clone()), []);
    assert_eq!(verify(&links[3..], end.clone()), [], "bridged");
    assert_eq!(verify(&links[4..], end), [Fault::Missing { seq: 1, through: 4 }]);
    assert_eq!(verify(&links[3..6], head(&links[..6])), [Fault::Missing { seq: 1, through: 3 }]);
}

#[test]
fn what_is_no_head_is_refused() {
    for text in ["", "1", "1:", "x:00", "-1:00", &format!("1:{}", "G".repeat(64))] {
        assert!(text.parse::<Head>().is_err(), "{text}");
    }
}
