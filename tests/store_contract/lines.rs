//! Lines against a model: a list of tags, sorted each time it is asked.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidewaiter::policy::{Answer, Fact, LineId, LineKey, Question, Span};
use tidewaiter::store::embedded::{EmbeddedStore, Options};
use tidewaiter::store::{Step, Store};

use crate::kit::*;

/// What one tag is set to: whether it is there, whether an image, and its places.
type Setting = (bool, bool, Vec<(u8, u8, u8)>);

fn key((line, group, rank): (u8, u8, u8)) -> LineKey {
    // Ranks of several lengths, one the beginning of another.
    let rank = [&[rank / 3][..], &vec![0; usize::from(rank % 3)]].concat();
    place(&format!("line-{line}"), &[group], &rank)
}

fn spans() -> Vec<Span> {
    let mut spans = vec![Span::All, Span::Highest(1), Span::Highest(3)];
    for rank in 0..9 {
        let rank = key((0, 0, rank)).rank;
        spans.extend([Span::Below(rank.clone(), 1), Span::Below(rank.clone(), 5), Span::Above(rank, 2)]);
    }
    spans
}

fn model(tags: &BTreeMap<String, Setting>, line: u8, group: u8, span: &Span) -> Vec<String> {
    let mut members: Vec<(Vec<u8>, String)> = Vec::new();
    for (name, (there, image, places)) in tags {
        for place in places {
            let member = (key(*place).rank, name.clone());
            if *there && *image && (place.0, place.1) == (line, group) && !members.contains(&member) {
                members.push(member);
            }
        }
    }
    members.sort();
    let (members, count): (Vec<_>, usize) = match span {
        Span::All => (members, usize::MAX),
        Span::Highest(count) => (members.into_iter().rev().collect(), *count),
        Span::Below(rank, count) => (members.into_iter().rev().filter(|m| m.0 < *rank).collect(), *count),
        Span::Above(rank, count) => (members.into_iter().filter(|m| m.0 > *rank).collect(), *count),
    };
    members.into_iter().take(count).map(|(_, name)| name).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn lines_answer_as_a_sorted_list_would(
        steps in proptest::collection::vec(
            (0u8..8, any::<bool>(), any::<bool>(), proptest::collection::vec((0u8..2, 0u8..2, 0u8..9), 0..3)),
            1..25,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = EmbeddedStore::open_in_memory(Options::default()).unwrap();
            let mut tags = BTreeMap::new();
            for (n, (name, there, image, places)) in steps.into_iter().enumerate() {
                let name = format!("t{name}");
                let mut update = update(&name, there.then_some("x"), 1);
                // A tag that does not count in a line has no place in it.
                update.lines = if image { places.iter().copied().map(key).collect() } else { Vec::new() };
                write(&store, "a", n as i64, Step { tags: vec![update], ..Step::default() }).await;
                tags.insert(name, (there, image, places));
            }
            for (line, group) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)] {
                for span in spans() {
                    let expected = model(&tags, line, group, &span);
                    let line = LineId(format!("line-{line}").into());
                    let question = Question::Line { line, group: vec![group], span };
                    let answers = store.answer(&repo("a"), vec![question.clone()]).await.unwrap();
                    let Answer::Tags(Fact::Known(found)) = &answers[0].1 else { panic!("{answers:?}") };
                    let found: Vec<String> = found.iter().map(|t| t.to_string()).collect();
                    assert_eq!(found, expected, "{question:?}");
                }
            }
        });
    }
}
