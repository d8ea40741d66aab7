//! Against the real Alertmanager, where it is installed (Debian: prometheus-alertmanager).

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::http::HttpTransport;
use super::super::message::Alert;
use super::super::sink::{Sent, Sink};
use super::*;

const PROGRAM: &str = "/usr/bin/prometheus-alertmanager";

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a real Alertmanager goes by the real time")]
fn wall() -> Timestamp {
    Timestamp::now()
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.starts_with("HTTP/1.0 200").then(|| answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

async fn active(port: u16) -> Vec<String> {
    let body = get(port, "/api/v2/alerts?active=true").await.unwrap();
    let alerts: Vec<Value> = serde_json::from_str(&body).unwrap();
    let mut tags: Vec<String> = alerts.iter().map(|a| a["labels"]["tag"].as_str().unwrap().to_owned()).collect();
    tags.sort();
    tags
}

/// Collects what Alertmanager's own receiver is told: (status, tag).
async fn receiver() -> (SocketAddr, Arc<Mutex<Vec<(String, String)>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let told: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let kept = told.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            let mut part = [0; 65536];
            while let Ok(n @ 1..) = stream.read(&mut part).await {
                text.push_str(&String::from_utf8_lossy(&part[..n]));
                let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                if let Ok(note) = serde_json::from_str::<Value>(body) {
                    for alert in note["alerts"].as_array().unwrap() {
                        let text = |v: &Value| v.as_str().unwrap().to_owned();
                        kept.lock().unwrap().push((text(&alert["status"]), text(&alert["labels"]["tag"])));
                    }
                    let _ =
                        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
                    break;
                }
            }
        }
    });
    (address, told)
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !done().await {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn fires_stays_and_resolves_in_the_real_alertmanager() {
    if !Path::new(PROGRAM).exists() {
        eprintln!("{PROGRAM} is not installed: not tested");
        return;
    }
    let (webhook, told) = receiver().await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("am.yml");
    let text = format!(
        "route: {{receiver: sink, group_by: [alertname, registry, repository, tag], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
         receivers: [{{name: sink, webhook_configs: [{{url: 'http://{webhook}/', send_resolved: true}}]}}]\n"
    );
    std::fs::write(&config, text).unwrap();
    let port = free_port();
    let child = Command::new(PROGRAM)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", directory.path().join("am").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _running = Running(child);
    until("ready", async || get(port, "/-/ready").await.is_some()).await;

    let transport = HttpTransport::new(None).unwrap();
    let sink = Sink::new(settings("alertmanager", &format!("http://127.0.0.1:{port}")), links(), transport).unwrap();
    let now = wall();
    let firing = |tag: &str| {
        let mut v = violation(tag);
        v.fired_at = Some(now - SignedDuration::from_mins(10));
        Alert::of(&repository(), &v, Edge::Fired)
    };
    // Told as it was nearly four minutes ago, so that what is not told again is over in three seconds.
    let then = now - SignedDuration::from_mins(4) + SignedDuration::from_secs(3);
    let both = [firing("kept"), firing("left")];
    assert_eq!(sink.send(&both, then).await, Sent::Delivered);
    until("both fire", async || active(port).await == ["kept", "left"]).await;
    assert_eq!(sink.send(&both[..1], now).await, Sent::Delivered);
    until("what is told again stays, the other goes", async || active(port).await == ["kept"]).await;

    // Hostile text and every kind of alert is taken.
    let mut hostile = violation("odd");
    hostile.message = "<!channel>\u{0}\u{202e}\"\\".into();
    hostile.key.policy = "".into();
    hostile.key.class = "\n".into();
    hostile.fired_at = Some(now);
    let odd = Alert::of(&repository(), &hostile, Edge::Fired);
    assert_eq!(sink.send(std::slice::from_ref(&odd), now).await, Sent::Delivered);
    assert_eq!(sink.send(&[odd.resolved(wall())], wall()).await, Sent::Delivered);
    // A clock that is behind does not make an alert that ends before it starts.
    assert_eq!(sink.send(&[firing("kept")], now - SignedDuration::from_hours(5)).await, Sent::Delivered);

    let [kept, _] = both;
    assert_eq!(sink.send(&[kept.resolved(wall())], wall()).await, Sent::Delivered);
    until("resolved", async || active(port).await.is_empty()).await;
    until("the receiver hears both edges", async || {
        let told = told.lock().unwrap();
        ["firing", "resolved"].iter().all(|status| told.contains(&((*status).to_owned(), "kept".to_owned())))
    })
    .await;
}
