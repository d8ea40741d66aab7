//! That every trouble that was told is told to be over, also after a restart.

use super::super::message::{Alert, SinkInfo};
use super::super::topic::Topic;
use super::super::trouble::{Trouble, Troubles, begins, ends, since};
use super::*;

fn sinks() -> Vec<SinkInfo> {
    ["webhook", "slack"].map(|name| settings(name, "https://example.com/x").info()).to_vec()
}

fn edges(outbox: &Memory, sink: &str) -> Vec<(String, Edge)> {
    let items = outbox.items.lock().unwrap();
    let here = items.iter().filter(|(item, _)| &*item.alert.sink == sink);
    here.map(|(item, _)| Alert::from_json(&item.alert.body).unwrap()).map(|a| (a.reason, a.edge)).collect()
}

#[tokio::test]
async fn each_trouble_is_told_once_and_then_told_to_be_over() {
    for topic in Topic::ALL.iter().copied() {
        let (outbox, sinks) = (Memory::default(), sinks());
        let alert = |time: &str| Alert::about_self(topic, "it", "it is broken", at(time));
        for time in ["2026-11-22T12:00:00Z", "2026-11-22T12:10:00Z"] {
            assert!(begins(&outbox, &sinks, alert(time).into()).await);
        }
        assert_eq!(since(&outbox, topic, "it").await, Some(at("2026-11-22T12:00:00Z")));
        assert!(ends(&outbox, &sinks, (topic, "other"), "mended", at("2026-11-22T12:20:00Z")).await);
        for _ in 0..2 {
            assert!(ends(&outbox, &sinks, (topic, "it"), "mended", at("2026-11-22T12:30:00Z")).await);
        }
        let code = topic.as_str().to_owned();
        assert_eq!(edges(&outbox, "webhook"), [(code.clone(), Edge::Fired), (code, Edge::Resolved)]);
        assert_eq!(since(&outbox, topic, "it").await, None);
    }
}

#[tokio::test]
async fn the_sink_in_trouble_hears_of_neither_edge() {
    let (outbox, sinks) = (Memory::default(), sinks());
    let alert = Alert::about_self(Topic::SinkParked, "slack", "it refused", at("2026-11-22T12:00:00Z"));
    assert!(begins(&outbox, &sinks, Trouble { except: Some("slack".into()), ..alert.into() }).await);
    assert!(ends(&outbox, &sinks, (Topic::SinkParked, "slack"), "well", at("2026-11-22T12:30:00Z")).await);
    assert_eq!((edges(&outbox, "webhook").len(), edges(&outbox, "slack").len()), (2, 0));
}

#[tokio::test]
async fn more_troubles_than_anybody_reads_are_not_told() {
    let (outbox, sinks) = (Memory::default(), sinks());
    let mut troubles = Troubles::read(&outbox, &sinks).await.unwrap();
    for n in 0..500 {
        let alert = Alert::about_self(Topic::UndeterminedForLong, &format!("a/b:{n}"), "?", at("2026-11-22T12:00:00Z"));
        troubles.begin(alert.into());
    }
    troubles.close().await.unwrap();
    assert_eq!(edges(&outbox, "slack").len(), 200);
    let mut troubles = Troubles::read(&outbox, &sinks).await.unwrap();
    assert_eq!(troubles.end(at("2026-11-22T13:00:00Z"), |_| Some("well".into())), 200);
    troubles.close().await.unwrap();
    assert_eq!(edges(&outbox, "slack").len(), 400);
}
