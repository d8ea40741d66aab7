//! Clocks that jump: nothing is lost, no lease is stolen, no storm breaks loose, and the order stays (G-30).

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tidewaiter::clock::{Clock, SetClock, SystemClock};
use tidewaiter::store::embedded::EmbeddedStore;
use tidewaiter::store::{Paging, Store};

use crate::house::{House, POLICY, SMALL, client, event};
use crate::shelf::{DEVICES, Shelf, index};
use crate::size;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g30_a_clock_that_is_set_loses_nothing_and_repeats_nothing() {
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let clock = SetClock::at(SystemClock.now());
    let store = EmbeddedStore::open_in_memory(SMALL).unwrap();
    let client = client(&fake, Duration::from_secs(5), 100_000);
    let mut house = House::with(store, [client], Arc::new(clock.clone()), POLICY);
    house.start();
    let steps = [3_600, -3_600, 86_400, -86_400, -600, 1];
    let events = size(120, 2_000);
    for n in 0..events {
        let tag = format!("1.{n}.0");
        let digest = shelf.put("iot/a", &tag, &index(&DEVICES, &tag));
        house.tell(vec![event(&fake, "iot/a", Some(&tag), Some(&digest), &tag, house.now())]).await;
        if n % 10 == 9 {
            clock.advance(SignedDuration::from_secs(steps[n / 10 % steps.len()]));
        }
    }
    house.quiet().await;
    assert_eq!(house.tags().await, shelf.all());
    assert_eq!(house.violations().await, vec![]);
    let page = Paging { cursor: None, limit: 1_000 };
    let rows = house.store.events(None, None, None, page).await.unwrap().items;
    assert!(rows.iter().all(|row| row.state == "judged"));
    // Four manifests and three configs each; a lease stolen would ask for them again.
    let asked = fake.seen().len();
    assert!(asked < events * 12, "{asked} requests for {events} tags");
    house.stop().await;
    println!(
        "clock: {events} events under steps of an hour, a day and ten minutes; {asked} requests; 0 lost, 0 repeated"
    );
}
