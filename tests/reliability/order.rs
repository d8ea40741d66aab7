//! Late, repeated and reordered events come to one history and one decision (G-12, G-13).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use tidewaiter::policy::violation::Edge;
use tidewaiter::store::Store;

use crate::house::{House, client, event};
use crate::random::Random;
use crate::shelf::{Shelf, bare};
use crate::size;

/// Periods as digest and beginning, of one tag.
async fn history(house: &House, repository: &str) -> Vec<(Option<String>, String)> {
    let repository = repository.parse().unwrap();
    let tags = house.store.tags(&repository, None, 10).await.unwrap();
    let history = tags.into_iter().next().unwrap().1.history.unwrap();
    let begin = |period: &tidewaiter::history::Period| period.from.to_string();
    history.periods().iter().map(|p| (p.digest.as_ref().map(ToString::to_string), begin(p))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g12_any_order_and_any_copies_come_to_one_history_and_one_decision() {
    let mut random = Random::new("order");
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let client = client(&fake, Duration::from_secs(5), 100_000);
    let mut house = House::new([client]);
    house.start();
    let runs = size(200, 10_000);
    let mut copies_in_all = 0;
    // Several at a time, each in a repository of its own.
    let mut done = 0;
    while done < runs {
        let now = house.now();
        let mut expected: BTreeMap<String, (Vec<String>, Vec<jiff::Timestamp>)> = BTreeMap::new();
        let mut waves: Vec<Vec<_>> = vec![Vec::new(); 4];
        for run in done..(done + 50).min(runs) {
            let repository = format!("iot/r{run}");
            let moves: Vec<String> = (0..1 + random.below(4)).map(|_| format!("{run}-{}", random.below(3))).collect();
            let mut digests = Vec::new();
            for name in &moves {
                digests.push(shelf.put(&repository, "1.0.0", &bare(name)));
            }
            let times: Vec<_> = (0..moves.len())
                .map(|n| now.checked_sub(SignedDuration::from_secs(1_000 - n as i64)).unwrap())
                .collect();
            for (n, digest) in digests.iter().enumerate() {
                // Copies with the same id are redeliveries, those with another come from replicas.
                for copy in 0..1 + random.below(5) {
                    let key = if random.below(2) == 0 { format!("{run}-{n}") } else { format!("{run}-{n}-{copy}") };
                    waves[random.below(4)].push(event(&fake, &repository, Some("1.0.0"), Some(digest), &key, times[n]));
                    copies_in_all += 1;
                }
            }
            expected.insert(repository, (digests, times));
        }
        done += 50;
        for mut wave in waves {
            random.shuffle(&mut wave);
            house.tell(wave).await;
            if random.below(2) == 0 {
                house.quiet().await;
            }
        }
        house.quiet().await;
        let (alerts, violations) = (house.alerts().await, house.violations().await);
        for (repository, (digests, times)) in expected {
            // A digest pushed twice in a row is one period; the last state is what the registry shows.
            let mut wanted: Vec<(Option<String>, String)> = Vec::new();
            for (digest, time) in digests.iter().zip(times) {
                if wanted.last().is_none_or(|(last, _)| last.as_ref() != Some(digest)) {
                    wanted.push((Some(digest.clone()), time.to_string()));
                }
            }
            // What was reported only, and was there before, cannot be told from a replica's late word.
            let last = wanted.last().cloned().unwrap().0;
            let mut seen = Vec::new();
            let mut told: Vec<(Option<String>, String)> = Vec::new();
            for period in wanted {
                if period.0 != last && seen.contains(&period.0) {
                    continue;
                }
                seen.push(period.0.clone());
                if told.last().is_none_or(|known| known.0 != period.0) {
                    told.push(period);
                }
            }
            let name = format!("{}/{repository}", fake.host());
            assert_eq!(history(&house, &name).await, told, "{repository}");
            // A move is told once. A late word of one more move that was undone is one more thing to tell, so a tag
            // that came back may be told of as often as it was really moved; one that moved once, exactly once.
            let really = digests.windows(2).filter(|pair| pair[0] != pair[1]).count();
            let of_tag = format!("{name}:1.0.0");
            let fired = alerts.iter().filter(|(tag, requirement, edge)| {
                *tag == of_tag && requirement == "immutable" && *edge == Edge::Fired
            });
            let (fired, moves) = (fired.count(), told.len() - 1);
            assert!(fired <= really && fired >= moves.min(1), "{repository}: {fired} for {told:?}");
            let open = violations
                .iter()
                .any(|row| row.repository.to_string() == name && row.violation.key.rule.as_str() == "immutable");
            assert_eq!(open, told[0].0 != last, "{repository}: {told:?}");
        }
    }
    house.stop().await;
    println!("order: {runs} histories out of {copies_in_all} events, 0 lost, 0 unexpected, 0 duplicate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g13_what_is_told_again_and_changes_nothing_is_evidence_for_what_comes_later() {
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let mut house = House::new([client(&fake, Duration::from_secs(5), 100_000)]);
    house.start();
    let now = house.now();
    let at = |n: i64| now.checked_sub(SignedDuration::from_secs(1_000 - n)).unwrap();
    let digests: Vec<String> = ["a", "b", "c", "a"].map(|name| shelf.put("iot/a", "1.0.0", &bare(name))).into();
    // The first digest, and its return, which says nothing new by then; and only then what was in between.
    for n in [0, 3, 1, 2] {
        let told = event(&fake, "iot/a", Some("1.0.0"), Some(&digests[n]), &n.to_string(), at(n as i64));
        house.tell(vec![told]).await;
        house.quiet().await;
    }
    let wanted: Vec<_> = digests.iter().zip(0..).map(|(digest, n)| (Some(digest.clone()), at(n).to_string())).collect();
    assert_eq!(history(&house, &format!("{}/iot/a", fake.host())).await, wanted);
    house.stop().await;
}
