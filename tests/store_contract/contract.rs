//! The promises of the trait, one function each.

use std::time::{Duration, Instant};

use tidewaiter::history::Origin;
use tidewaiter::image::Digest;
use tidewaiter::policy::{Answer, Fact, Question, State, TagRecord};
use tidewaiter::store::{
    Content, ContentKind, DeadLetter, EventEnd, Paging, Recheck, Retention, Step, Store, StoreError, ViolationFilter,
};

use crate::kit::*;

pub async fn an_event_comes_back_as_it_was_handed_over<S: Store>(store: S) {
    let mut bare = event("iot/bare", "b", 2);
    bare.event.registry = None;
    bare.event.tag = None;
    bare.event.digest = None;
    bare.event.id = None;
    bare.event.at = None;
    bare.event.actor = None;
    let full = event("iot/full", "a", 1);
    let appended = store.append(vec![full.clone(), bare.clone()], vec![]).await.unwrap();
    assert_eq!((appended.recorded, appended.duplicate), (2, 0));
    let claims = claim(&store, 5).await;
    let events: Vec<_> = claims.iter().flat_map(|c| &c.events).map(|e| e.incoming.clone()).collect();
    assert_eq!(events, [full, bare]);
    assert!(claims.iter().all(|c| c.events[0].attempts == 0 && c.rechecks.is_empty()));
}

pub async fn t15_a_redelivery_is_a_duplicate_for_ever<S: Store>(store: S) {
    let both = vec![event("a", "1", 1), event("a", "1", 2)];
    let first = store.append(both, vec![]).await.unwrap();
    assert_eq!((first.recorded, first.duplicate), (1, 1));
    let claims = claim(&store, 3).await;
    let ended = Step { events: vec![(claims[0].events[0].id, EventEnd::Judged)], ..Step::default() };
    store.complete(&claims[0], ended, false).await.unwrap();
    let again = store.append(vec![event("a", "1", 9)], vec![]).await.unwrap();
    assert_eq!((again.recorded, again.duplicate), (0, 1));
    // Another source, or another repository, means another event.
    let others = vec![from("harbor", "a", "1", 9), event("b", "1", 9)];
    assert_eq!(store.append(others, vec![]).await.unwrap().recorded, 2);
}

pub async fn events_of_a_repository_come_in_order_and_to_one_worker<S: Store>(store: S) {
    for n in 0..10 {
        store.append(vec![event("a", &n.to_string(), n)], vec![]).await.unwrap();
    }
    let first = store.claim(t(20), 5, 4, LEASE).await.unwrap();
    assert_eq!(first.len(), 1);
    let keys = |c: &tidewaiter::store::Claim| c.events.iter().map(|e| e.incoming.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&first[0]), ["0", "1", "2", "3"]);
    store.append(vec![event("a", "10", 20)], vec![]).await.unwrap();
    assert!(claim(&store, 20).await.is_empty(), "a claimed repository is nobody else's");
    let done = first[0].events.iter().map(|e| (e.id, EventEnd::Judged)).collect();
    store.complete(&first[0], Step { events: done, ..Step::default() }, false).await.unwrap();
    let second = claim(&store, 20).await;
    assert_eq!(keys(&second[0]), ["4", "5", "6", "7", "8", "9", "10"]);
    assert!(second[0].fence > first[0].fence);
}

pub async fn t66_a_clock_that_steps_back_hides_no_event<S: Store>(store: S) {
    store.append(vec![event("a", "1", 1_000)], vec![]).await.unwrap();
    assert_eq!(claim(&store, 0).await.len(), 1);
}

pub async fn t14_sources_take_turns<S: Store>(store: S) {
    for n in 0..50 {
        store.append(vec![from("loud", &format!("loud{n}"), "k", n)], vec![]).await.unwrap();
    }
    for n in 0..3 {
        store.append(vec![from("quiet", &format!("quiet{n}"), "k", 100 + n)], vec![]).await.unwrap();
    }
    let mut quiet = 0;
    for _ in 0..6 {
        let claims = store.claim(t(200), 1, 10, LEASE).await.unwrap();
        quiet += usize::from(&*claims[0].events[0].incoming.source == "quiet");
    }
    assert_eq!(quiet, 3);
}

pub async fn g19_a_lost_claim_writes_nothing<S: Store>(store: S) {
    store.append(vec![event("a", "1", 1)], vec![]).await.unwrap();
    let old = claim(&store, 10).await.remove(0);
    assert!(claim(&store, 39).await.is_empty(), "the lease holds for 30 s");
    let new = claim(&store, 41).await.remove(0);
    let step = Step { tags: vec![update("1.0.0", Some("x"), 1)], ..Step::default() };
    let lost = store.complete(&old, step.clone(), false).await;
    assert!(matches!(lost, Err(StoreError::Fenced(r)) if r == repo("a")));
    assert!(store.tags(&repo("a"), None, 10).await.unwrap().is_empty());
    store.complete(&new, step.clone(), true).await.unwrap();
    store.complete(&new, step.clone(), false).await.unwrap();
    assert!(matches!(store.complete(&new, step, false).await, Err(StoreError::Fenced(_))), "given back is given back");
    assert_eq!(store.tags(&repo("a"), None, 10).await.unwrap().len(), 1);
}

pub async fn an_event_is_retried_at_its_time<S: Store>(store: S) {
    store.append(vec![event("a", "1", 1), event("a", "2", 2)], vec![]).await.unwrap();
    let claimed = claim(&store, 5).await.remove(0);
    let ends = vec![
        (claimed.events[0].id, EventEnd::Retry { at: t(60), fault: "the registry did not answer".into() }),
        (claimed.events[1].id, EventEnd::Dead { fault: "no such thing".into() }),
    ];
    store.complete(&claimed, Step { events: ends, ..Step::default() }, false).await.unwrap();
    assert!(claim(&store, 59).await.is_empty());
    let listed = store.events(None, None, None, pages(10)).await.unwrap().items;
    let states: Vec<_> = listed.iter().map(|e| (e.state.as_str(), e.fault.as_deref().unwrap_or_default())).collect();
    assert_eq!(states, [("dead", "no such thing"), ("retrying", "the registry did not answer")]);
    assert_eq!(store.stats().await.unwrap().queued, 1);
    let again = claim(&store, 60).await.remove(0);
    assert_eq!((again.events.len(), again.events[0].attempts), (1, 1));
}

pub async fn the_earlier_recheck_wins_and_none_is_lost<S: Store>(store: S) {
    let a = repo("a");
    store.recheck(&a, vec![recheck(Some("1"), 50), recheck(None, 90)]).await.unwrap();
    store.recheck(&a, vec![recheck(Some("1"), 20), recheck(Some("1"), 70)]).await.unwrap();
    assert!(claim(&store, 19).await.is_empty());
    let first = claim(&store, 20).await.remove(0);
    assert_eq!(first.rechecks, [recheck(Some("1"), 20)]);
    // Asked for again while it is being judged: what was judged may be old already.
    store.recheck(&a, vec![recheck(Some("1"), 21)]).await.unwrap();
    let done = Step { rechecked: vec![Some(tag("1"))], rechecks: vec![recheck(Some("2"), 40)], ..Step::default() };
    store.complete(&first, done.clone(), false).await.unwrap();
    let second = claim(&store, 40).await.remove(0);
    let mut due: Vec<_> = second.rechecks.iter().map(|r| r.tag.clone()).collect();
    due.sort();
    assert_eq!(due, [Some(tag("1")), Some(tag("2"))]);
    // A step's own wishes are its own to remove, also under the claim it keeps.
    let kept = Step { rechecked: vec![Some(tag("1")), Some(tag("2"))], rechecks: vec![recheck(Some("3"), 41)], ..done };
    store.complete(&second, kept, true).await.unwrap();
    let last = Step { rechecked: vec![Some(tag("3"))], ..Step::default() };
    store.complete(&second, last, false).await.unwrap();
    assert!(claim(&store, 80).await.is_empty());
    assert_eq!(claim(&store, 90).await[0].rechecks, [recheck(None, 90)]);
}

pub async fn who_waits_for_work_is_woken<S: Store>(store: S) {
    let long = Duration::from_secs(60);
    let begun = Instant::now();
    let store = std::sync::Arc::new(store);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.work(t(0), long).await }
    });
    tokio::task::yield_now().await;
    store.append(vec![event("a", "1", 0)], vec![]).await.unwrap();
    waiting.await.unwrap();
    // What is there already, or is due at once, needs no waking.
    store.work(t(0), long).await;
    let claimed = claim(&*store, 0).await.remove(0);
    let done = Step { events: vec![(claimed.events[0].id, EventEnd::Judged)], ..Step::default() };
    store.complete(&claimed, done, false).await.unwrap();
    store.recheck(&repo("a"), vec![recheck(None, 1)]).await.unwrap();
    store.work(t(0), long).await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(begun.elapsed() >= Duration::from_secs(1), "woken before the time had come");
    // An alert wakes who delivers.
    let delivering = tokio::spawn({
        let store = store.clone();
        async move { store.outbox_work(t(0), long).await }
    });
    tokio::task::yield_now().await;
    store.outbox_add(vec![alert("s", "k")]).await.unwrap();
    delivering.await.unwrap();
    store.outbox_retry(store.outbox("s", t(0), 9).await.unwrap()[0].id, t(3_600)).await.unwrap();
    let begun = Instant::now();
    store.outbox_work(t(0), Duration::from_millis(50)).await;
    assert!(begun.elapsed() >= Duration::from_millis(50));
}

pub async fn a_step_is_written_whole<S: Store>(store: S) {
    store.append(vec![event("a", "1", 1)], vec![]).await.unwrap();
    let claimed = claim(&store, 2).await.remove(0);
    let manifest = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let config = br#"{"os":"linux","architecture":"amd64"}"#;
    let content = |bytes: &[u8], kind, media_type: &str| Content {
        digest: Digest::of(bytes),
        kind,
        media_type: media_type.into(),
        bytes: bytes.into(),
        children: if kind == ContentKind::Manifest { vec![d("child"), d("child"), d("other")] } else { vec![] },
    };
    let step = Step {
        contents: vec![
            content(manifest, ContentKind::Manifest, "application/vnd.oci.image.index.v1+json"),
            content(config, ContentKind::Config, ""),
        ],
        sighted: vec![],
        // Of another digest than the tag has, a lock says nothing.
        locks: vec![(tag("1.0.0"), d("x"), true), (tag("1.0.0"), d("other"), false)],
        tags: vec![update("1.0.0", Some("x"), 1), update("latest", Some("x"), 1), update("gone", None, 1)],
        governing: None,
        verdicts: vec![judged("a", Some("1.0.0"), "p", "{}")],
        changes: vec![violation("p", "1.0.0", State::Firing)],
        alerts: vec![alert("oncall", "k")],
        events: vec![(claimed.events[0].id, EventEnd::Judged)],
        rechecked: vec![],
        rechecks: vec![recheck(Some("1.0.0"), 100)],
        gone: vec![],
    };
    store.complete(&claimed, step, false).await.unwrap();

    let unseen = repo("elsewhere");
    let questions = vec![
        Question::Manifest(Digest::of(manifest)),
        Question::Manifest(Digest::of(config)),
        Question::Config(Digest::of(config)),
        Question::Tagged(d("x")),
        Question::Parents(d("child")),
        Question::Tag(tag("1.0.0")),
    ];
    let answers = store.answer(&repo("a"), questions.clone()).await.unwrap();
    assert_eq!(answers.len(), 5, "a config is no manifest");
    let Answer::Manifest(Fact::Known(stored)) = &answers[0].1 else { panic!("{answers:?}") };
    assert!(stored.parsed.as_ref().unwrap().index().is_some() && stored.bytes[..] == manifest[..]);
    let Answer::Config(Fact::Known(stored)) = &answers[1].1 else { panic!("{answers:?}") };
    assert_eq!(stored.parsed.as_ref().unwrap().declared.os, "linux");
    assert_eq!(answers[2].1, Answer::Tags(Fact::Known([tag("1.0.0"), tag("latest")].into())));
    assert_eq!(answers[3].1, Answer::Digests(Fact::Known([Digest::of(manifest)].into())));
    let Answer::Tag(Fact::Known(record)) = &answers[4].1 else { panic!("{answers:?}") };
    assert_eq!((&record.current, record.judged_moves, record.locked), (&Some(d("x")), 1, Some(true)));
    assert_eq!(record.history.as_ref().unwrap().sightings(), update("1.0.0", Some("x"), 1).sightings);

    // Content belongs to its repository; a tag never seen has an empty history, which is a record all the same.
    let answers = store.answer(&unseen, questions).await.unwrap();
    assert_eq!(answers.len(), 3);
    let Answer::Tag(Fact::Known(record)) = &answers[2].1 else { panic!("{answers:?}") };
    assert!(record.current.is_none() && record.history.as_ref().unwrap().is_empty());

    let open = store.open_violations(&repo("a"), vec![Some(tag("1.0.0")), None]).await.unwrap();
    assert_eq!(open, [violation("p", "1.0.0", State::Firing).violation]);
    assert_eq!(store.outbox("oncall", t(3), 9).await.unwrap()[0].alert, alert("oncall", "k"));
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.queued, stats.oldest, stats.outbox), (0, None, vec![("oncall".into(), 1)]));
    assert_eq!((stats.violations.len(), stats.violations[0].count), (1, 1));
}

pub async fn a_violation_is_entered_once_and_kept<S: Store>(store: S) {
    let change = |state| Step { changes: vec![violation("p", "1", state)], ..Step::default() };
    write(&store, "a", 1, change(State::Pending)).await;
    write(&store, "a", 2, change(State::Firing)).await;
    let all =
        ViolationFilter { states: vec![State::Pending, State::Firing, State::Resolved], ..ViolationFilter::default() };
    let listed = store.violations(all.clone(), pages(10)).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    assert_eq!(listed.items[0].violation, violation("p", "1", State::Firing).violation);
    let counts = store.stats().await.unwrap().violations;
    assert_eq!((counts.len(), counts[0].state, counts[0].count), (1, State::Firing, 1));
    write(&store, "a", 3, change(State::Resolved)).await;
    assert!(store.stats().await.unwrap().violations.is_empty());
    assert!(store.open_violations(&repo("a"), vec![Some(tag("1"))]).await.unwrap().is_empty());
    assert!(store.violations(ViolationFilter::default(), pages(10)).await.unwrap().items.is_empty());
    // The next time is another violation.
    write(&store, "a", 4, change(State::Firing)).await;
    assert_eq!(store.violations(all, pages(10)).await.unwrap().items.len(), 2);
}

pub async fn listings_page_newest_first<S: Store>(store: S) {
    for n in 0..25 {
        let name = format!("t{n:02}");
        let repository = if n % 2 == 0 { "even" } else { "odd" };
        let step = Step {
            changes: vec![violation(if n < 5 { "old" } else { "new" }, &name, State::Firing)],
            verdicts: vec![judged(repository, Some(&name), "p", &format!("{{\"n\": {n}}}"))],
            ..Step::default()
        };
        write(&store, repository, n, step).await;
        store.append(vec![event(repository, &name, n)], vec![]).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut paging = pages(10);
    loop {
        let page = store.violations(ViolationFilter::default(), paging.clone()).await.unwrap();
        assert!(page.items.len() <= 10);
        seen.extend(page.items.iter().map(|v| v.violation.key.tag.clone().unwrap().to_string()));
        let Some(next) = page.next else { break };
        paging.cursor = Some(next);
    }
    assert_eq!(seen, (0..25).rev().map(|n| format!("t{n:02}")).collect::<Vec<_>>());

    let odd = ViolationFilter { repository: Some("odd".into()), ..ViolationFilter::default() };
    assert_eq!(store.violations(odd.clone(), pages(100)).await.unwrap().items.len(), 12);
    let both = ViolationFilter { registry: Some(repo("odd").host), policy: Some("old".into()), ..odd };
    assert_eq!(store.violations(both.clone(), pages(100)).await.unwrap().items.len(), 2);
    let nowhere = ViolationFilter { repository: Some("../x".into()), ..both };
    assert!(store.violations(nowhere, pages(100)).await.unwrap().items.is_empty());

    // Judged again, a tag's verdict is the newest, and still the only one.
    write(&store, "even", 30, Step { verdicts: vec![judged("even", Some("t00"), "p", "again")], ..Step::default() })
        .await;
    let reports = store.verdicts(None, None, None, pages(3)).await.unwrap();
    assert_eq!(reports.items, ["again", "{\"n\": 24}", "{\"n\": 23}"]);
    let all = store.verdicts(Some(repo("a").host), Some("even".into()), None, pages(100)).await.unwrap();
    assert_eq!((all.items.len(), all.next), (13, None));
    let one = store.verdicts(None, None, Some(tag("t07")), pages(100)).await.unwrap();
    assert_eq!(one.items, ["{\"n\": 7}"]);

    // A policy that no longer governs takes its verdicts with it, and what classes lack is told anew.
    let two = vec![judged("even", Some("t00"), "q", "{\"q\": 0}"), judged("even", None, "p", "{\"lacks\": 1}")];
    write(&store, "even", 31, Step { verdicts: two, ..Step::default() }).await;
    let names = |governing: &[&str]| Some(governing.iter().map(|name| (*name).into()).collect());
    let anew = vec![judged("even", None, "q", "{\"lacks\": 2}")];
    write(&store, "even", 32, Step { governing: names(&["q", "r"]), verdicts: anew, ..Step::default() }).await;
    let left = store.verdicts(Some(repo("a").host), Some("even".into()), None, pages(100)).await.unwrap();
    assert_eq!(left.items, ["{\"lacks\": 2}", "{\"q\": 0}"]);
    let others = store.verdicts(Some(repo("a").host), Some("odd".into()), None, pages(100)).await.unwrap();
    assert_eq!(others.items.len(), 12, "another repository is none of its business");

    let since = store.events(Some(t(20)), None, None, pages(100)).await.unwrap();
    assert_eq!((since.items.len(), since.next), (5, None));
    let one = store.events(None, Some("acr".into()), Some("id-t03".into()), pages(100)).await.unwrap();
    assert_eq!((one.items.len(), one.items[0].id.as_deref()), (1, Some("id-t03")));
    assert!(store.events(None, Some("other".into()), None, pages(100)).await.unwrap().items.is_empty());
    for cursor in ["", "x", "1 OR 1=1", "9999999999999999999999"] {
        let wrong = store.events(None, None, None, Paging { cursor: Some(cursor.into()), limit: 1 }).await;
        assert!(matches!(wrong, Err(StoreError::Cursor(_))), "{cursor}");
    }
}

pub async fn the_outbox_is_in_order_and_retries<S: Store>(store: S) {
    let alerts = vec![alert("s", "1"), alert("s", "2"), alert("other", "1"), alert("s", "3"), alert("s", "2")];
    store.outbox_add(alerts).await.unwrap();
    let keys = async |second| {
        let due = store.outbox("s", t(second), 10).await.unwrap();
        due.into_iter().map(|i| (i.id, i.alert.key, i.attempts)).collect::<Vec<_>>()
    };
    let all = keys(0).await;
    assert_eq!(all.iter().map(|(_, k, _)| k.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
    store.outbox_retry(all[0].0, t(10)).await.unwrap();
    assert_eq!(keys(9).await.len(), 2);
    assert_eq!(keys(10).await[0], (all[0].0, "1".into(), 1));
    store.outbox_done(vec![all[0].0, all[1].0, 9_999]).await.unwrap();
    assert_eq!(keys(10).await.len(), 1);
    let backlog = store.stats().await.unwrap().outbox;
    assert_eq!(backlog, [("other".into(), 1), ("s".into(), 1)]);
}

pub async fn t15_dead_letters_are_kept_as_they_came<S: Store>(store: S) {
    let letter = |n: u8| DeadLetter {
        id: 0,
        source: "acr".into(),
        received_at: t(i64::from(n)),
        fault: "not JSON: line 1".into(),
        headers: vec![("content-type".into(), "text/plain; \"x\"".into())],
        body: vec![0, 255, n].into(),
    };
    store.append(vec![], vec![letter(1), letter(2)]).await.unwrap();
    let listed = store.dead_letters(pages(10)).await.unwrap().items;
    assert_eq!(listed.iter().map(|l| DeadLetter { id: 0, ..l.clone() }).collect::<Vec<_>>(), [letter(2), letter(1)]);
    assert_eq!(store.stats().await.unwrap().dead_letters, 2);
    store.forget_dead_letter(listed[0].id).await.unwrap();
    store.forget_dead_letter(listed[0].id).await.unwrap();
    assert_eq!(store.stats().await.unwrap().dead_letters, 1);
}

pub async fn an_accepted_digest_stays_with_its_tag<S: Store>(store: S) {
    // Only what the tag points to can be accepted, not what somebody means to push.
    let early = store.accept(&repo("a"), &tag("1"), &d("new"), "rebuilt on purpose", t(5)).await;
    assert!(matches!(early, Err(StoreError::NotCurrent(_))), "{early:?}");
    write(&store, "a", 4, Step { tags: vec![update("1", Some("new"), 4)], ..Step::default() }).await;
    let other = store.accept(&repo("a"), &tag("1"), &d("other"), "rebuilt on purpose", t(5)).await;
    assert!(matches!(other, Err(StoreError::NotCurrent(_))), "{other:?}");
    store.accept(&repo("a"), &tag("1"), &d("new"), "rebuilt on purpose", t(5)).await.unwrap();
    write(&store, "a", 6, Step { tags: vec![update("1", Some("new"), 6)], ..Step::default() }).await;
    let tags = store.tags(&repo("a"), None, 10).await.unwrap();
    assert_eq!(tags[0].1.accepted, Some((d("new"), t(5))));
    assert_eq!(tags[0].1.current, Some(d("new")));
}

pub async fn repositories_and_tags_come_in_name_order<S: Store>(store: S) {
    let tags = ["b", "a", "C", "1.10", "1.9"].map(|name| update(name, Some("x"), 1)).to_vec();
    write(&store, "m", 1, Step { tags, ..Step::default() }).await;
    let other = "zeta.example/a".parse().unwrap();
    for repository in [repo("z"), repo("b/c"), other] {
        store.recheck(&repository, vec![recheck(None, 9)]).await.unwrap();
    }
    let all = store.repositories(None, None, 10).await.unwrap();
    assert!(all.is_sorted() && all.len() == 4);
    assert_eq!(store.repositories(Some(&repo("a").host), None, 10).await.unwrap().len(), 3);
    assert_eq!(store.repositories(None, Some(repo("m")), 1).await.unwrap(), [repo("z")]);
    let names = async |after, limit| {
        let tags = store.tags(&repo("m"), after, limit).await.unwrap();
        tags.into_iter().map(|(tag, _)| tag.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 10).await, ["1.10", "1.9", "C", "a", "b"]);
    assert_eq!(names(Some(tag("1.9")), 2).await, ["C", "a"]);
}

pub async fn named_values_are_kept<S: Store>(store: S) {
    assert_eq!(store.get("cursor").await.unwrap(), None);
    store.set("cursor", "1").await.unwrap();
    store.set("cursor", "2").await.unwrap();
    assert_eq!(store.get("cursor").await.unwrap().as_deref(), Some("2"));
    store.probe().await.unwrap();
}

pub async fn more_evidence_of_a_tag_changes_nothing_else<S: Store>(store: S) {
    let mut seen = update("1", Some("x"), 1);
    seen.lines = vec![place("line", b"", b"1")];
    write(&store, "a", 1, Step { tags: vec![seen], ..Step::default() }).await;
    let question = || vec![Question::Tag(tag("1"))];
    let record = async || match store.answer(&repo("a"), question()).await.unwrap().remove(0).1 {
        Answer::Tag(Fact::Known(record)) => record.as_ref().clone(),
        other => panic!("{other:?}"),
    };
    let before = record().await;
    let more: Vec<_> = [1, 2].into_iter().flat_map(|n| update("1", Some("x"), n).sightings).collect();
    let sighted = vec![(tag("1"), more.clone()), (tag("unknown"), more)];
    write(&store, "a", 2, Step { sighted, ..Step::default() }).await;
    let after = record().await;
    assert_eq!(after.history.as_ref().unwrap().sightings().len(), 2);
    assert_eq!(TagRecord { history: before.history.clone(), ..after }, before);
    assert_eq!(store.tags(&repo("a"), None, 10).await.unwrap().len(), 1);
}

pub async fn pruning_takes_what_is_old_and_leads_nowhere<S: Store>(store: S) {
    store.append(vec![event("a", "1", 1), event("a", "2", 2)], vec![]).await.unwrap();
    let claimed = claim(&store, 3).await.remove(0);
    let kept = br#"{"schemaVersion":2,"config":{"mediaType":"x","digest":"CONFIG","size":1},"layers":[]}"#;
    let config = Digest::of(b"{}");
    let kept = String::from_utf8(kept.to_vec()).unwrap().replace("CONFIG", config.as_str()).into_bytes();
    let content = |bytes: &[u8], kind| Content {
        digest: Digest::of(bytes),
        kind,
        media_type: String::new(),
        bytes: bytes.into(),
        children: if kind == ContentKind::Manifest { vec![d("child")] } else { vec![] },
    };
    let mut seen = update("1", Some("x"), 1);
    seen.sightings[0].digest = Some(Digest::of(&kept));
    let step = Step {
        contents: vec![
            content(&kept, ContentKind::Manifest),
            content(b"{}", ContentKind::Config),
            content(b"[]", ContentKind::Manifest),
        ],
        tags: vec![seen, update("gone", None, 1)],
        verdicts: vec![judged("a", Some("1"), "p", "1"), judged("a", Some("gone"), "p", "gone")],
        events: vec![(claimed.events[0].id, EventEnd::Judged)],
        ..Step::default()
    };
    store.complete(&claimed, step, false).await.unwrap();
    // Contents are stored by the store's own time, which is that of the machine.
    let later = jiff::Timestamp::now().checked_add(Duration::from_secs(2)).unwrap().max(t(100));
    let long = Duration::from_secs(200 * 365 * 86_400);
    let keep_all =
        Retention { events: long, dead_letters: long, verdicts: long, contents: long, ..Retention::default() };
    assert_eq!(store.prune(keep_all, later).await.unwrap(), Default::default());
    let none = Retention { events: Duration::ZERO, verdicts: Duration::ZERO, contents: Duration::ZERO, ..keep_all };
    let pruned = store.prune(none, later).await.unwrap();
    assert_eq!((pruned.events, pruned.verdicts, pruned.contents), (1, 1, 1));
    let questions = vec![
        Question::Manifest(Digest::of(&kept)),
        Question::Config(config),
        Question::Manifest(Digest::of(b"[]")),
        Question::Parents(d("child")),
    ];
    let answers = store.answer(&repo("a"), questions).await.unwrap();
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[2].1, Answer::Digests(Fact::Known([Digest::of(&kept)].into())));
    assert_eq!(store.events(None, None, None, pages(10)).await.unwrap().items.len(), 1, "the waiting one");
}

pub async fn pruning_keeps_so_many_of_the_newest<S: Store>(store: S) {
    let letter = |n: i64| DeadLetter {
        id: 0,
        source: "acr".into(),
        received_at: t(n),
        fault: "not JSON".into(),
        headers: vec![],
        body: b"x"[..].into(),
    };
    store
        .append((0..30).map(|n| event("a", &n.to_string(), n)).collect(), (0..30).map(letter).collect())
        .await
        .unwrap();
    let claimed = store.claim(t(40), 1, 20, LEASE).await.unwrap().remove(0);
    let events = claimed.events.iter().map(|e| (e.id, EventEnd::Judged)).collect();
    store.complete(&claimed, Step { events, ..Step::default() }, false).await.unwrap();
    let few = Retention { events_max: 15, dead_letters_max: 10, ..Retention::default() };
    let pruned = store.prune(few, t(40)).await.unwrap();
    assert_eq!((pruned.events, pruned.dead_letters), (15, 20));
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.queued, stats.dead_letters), (10, 10));
    assert_eq!(store.dead_letters(pages(1)).await.unwrap().items[0].received_at, t(29));
}

pub async fn pruning_keeps_verdicts_and_violations_by_time_and_number<S: Store>(store: S) {
    let mut step = Step::default();
    for n in 0..20 {
        let name = format!("{n}");
        // Half of the tags are there.
        step.tags.push(update(&name, (n % 2 == 0).then_some("x"), 1));
        step.verdicts.push(judged("a", Some(&name), "p", &name));
        // Over at second 3, or open.
        step.changes.push(violation("p", &name, if n < 10 { State::Resolved } else { State::Firing }));
    }
    write(&store, "a", 1, step).await;
    let left = async || {
        let filter = ViolationFilter { states: vec![State::Firing, State::Resolved], ..ViolationFilter::default() };
        let violations = store.violations(filter, pages(100)).await.unwrap().items;
        let open = violations.iter().filter(|row| row.violation.state == State::Firing).count();
        let verdicts = store.verdicts(None, None, None, pages(100)).await.unwrap().items.len();
        (verdicts, open, violations.len() - open)
    };
    // Six of the twenty are too many, and of those only what is gone or over may go.
    let few = Retention { verdicts_max: 14, ..Retention::default() };
    let pruned = store.prune(few, t(100)).await.unwrap();
    assert_eq!((pruned.verdicts, pruned.violations), (3, 6));
    assert_eq!(left().await, (17, 10, 4));
    let none = Retention { verdicts_max: 0, ..Retention::default() };
    let pruned = store.prune(none, t(100)).await.unwrap();
    assert_eq!((pruned.verdicts, pruned.violations), (7, 4));
    assert_eq!(left().await, (10, 10, 0), "what is there and what is open stays, whatever the limit");
    // By time.
    let again = Step { changes: vec![violation("p", "late", State::Resolved)], ..Step::default() };
    write(&store, "a", 4, again).await;
    let short = Retention { verdicts: Duration::from_secs(50), ..Retention::default() };
    assert_eq!(store.prune(short, t(52)).await.unwrap().violations, 0);
    assert_eq!(store.prune(short, t(54)).await.unwrap().violations, 1);
}

pub async fn pruning_keeps_so_many_bytes_of_manifests<S: Store>(store: S) {
    let content = |text: &str| Content {
        digest: Digest::of(text.as_bytes()),
        kind: ContentKind::Manifest,
        media_type: String::new(),
        bytes: text.as_bytes().into(),
        children: vec![],
    };
    let wanted = format!("[\"{}\"]", "w".repeat(500));
    let mut seen = update("1", None, 1);
    seen.sightings[0].digest = Some(Digest::of(wanted.as_bytes()));
    let mut contents = vec![content(&wanted)];
    contents.extend((0..10).map(|n| content(&format!("[\"{n}{}\"]", "x".repeat(500)))));
    write(&store, "a", 1, Step { contents, tags: vec![seen], ..Step::default() }).await;
    // Contents are stored by the store's own time, which is that of the machine.
    let soon = jiff::Timestamp::now().checked_add(Duration::from_secs(2)).unwrap();
    assert_eq!(store.prune(Retention::default(), soon).await.unwrap().contents, 0);
    // However long they may be kept: beyond the size they go, and what a tag ever led to stays.
    let small = Retention { contents_bytes_max: 100, ..Retention::default() };
    assert_eq!(store.prune(small, soon).await.unwrap().contents, 10);
    let digest = Digest::of(wanted.as_bytes());
    assert_eq!(store.answer(&repo("a"), vec![Question::Manifest(digest)]).await.unwrap().len(), 1);
}

pub async fn a_recheck_keeps_why_and_how_often<S: Store>(store: S) {
    let wanted = Recheck { tag: Some(tag("1")), due: t(1), origin: Origin::Audit, attempts: 7 };
    store.recheck(&repo("a"), vec![wanted.clone()]).await.unwrap();
    assert_eq!(claim(&store, 1).await[0].rechecks, [wanted]);
}

pub async fn what_is_put_off_comes_back_in_its_time<S: Store>(store: S) {
    store.append(vec![event("a", "1", 1)], vec![]).await.unwrap();
    let held = claim(&store, 2).await.remove(0);
    store.put_off(&held, t(20)).await.unwrap();
    assert!(matches!(store.put_off(&held, t(20)).await, Err(StoreError::Fenced(_))), "it was given back");
    assert!(matches!(store.complete(&held, Step::default(), false).await, Err(StoreError::Fenced(_))));
    assert!(claim(&store, 19).await.is_empty());
    let again = claim(&store, 20).await.remove(0);
    assert_eq!((again.events.len(), again.events[0].attempts), (1, 0), "nothing was done, so nothing failed");
    store.put_off(&again, t(40)).await.unwrap();
    store.append(vec![event("a", "2", 21)], vec![]).await.unwrap();
    assert_eq!(claim(&store, 22).await[0].events.len(), 2);
}

pub async fn what_is_gone_is_no_answer_until_it_is_fetched_again<S: Store>(store: S) {
    let index = Content {
        digest: d("index"),
        kind: ContentKind::Manifest,
        media_type: String::new(),
        bytes: b"index".as_slice().into(),
        children: vec![d("child"), d("other")],
    };
    let child = Content { digest: d("child"), bytes: b"child".as_slice().into(), children: vec![], ..index.clone() };
    let contents = vec![index, child.clone()];
    write(&store, "a", 1, Step { contents, tags: vec![update("1.0.0", Some("index"), 1)], ..Step::default() }).await;
    let a = repo("a");
    let known = async || store.answer(&a, vec![Question::Manifest(d("child"))]).await.unwrap().len();
    let listed = async || store.listed(&a, None, 10).await.unwrap();
    // Only what is on record can go.
    assert_eq!((known().await, listed().await), (1, vec![d("child")]));
    store.gone(&a, vec![d("child")]).await.unwrap();
    assert_eq!((known().await, listed().await), (0, vec![]));
    let parents = store.answer(&a, vec![Question::Parents(d("child"))]).await.unwrap();
    assert_eq!(parents[0].1, Answer::Digests(Fact::Known(vec![d("index")].into())));
    write(&store, "a", 3, Step { contents: vec![child], ..Step::default() }).await;
    assert_eq!((known().await, listed().await), (1, vec![d("child")]));
    write(&store, "a", 5, Step { gone: vec![d("child")], ..Step::default() }).await;
    assert_eq!(known().await, 0);
}
