//! T-56: sinks that misbehave on the wire, met by the real client.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::super::deliver::{TestFailed, send_test};
use super::super::http::HttpTransport;
use super::super::message::Alert;
use super::super::sink::{Sent, Sink};
use super::*;

/// A server that does `act` with every connection once the request is read, and counts them.
async fn server<F>(act: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, Arc<Mutex<Vec<String>>>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let text = request(&mut stream).await;
            kept.lock().unwrap().push(text);
            tokio::spawn(act(stream));
        }
    });
    (address, requests)
}

async fn request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    loop {
        let mut part = [0; 4096];
        let n = stream.read(&mut part).await.unwrap_or(0);
        read.extend_from_slice(&part[..n]);
        let text = String::from_utf8_lossy(&read).into_owned();
        let length = text
            .to_ascii_lowercase()
            .split("content-length: ")
            .nth(1)
            .and_then(|t| t.split("\r\n").next()?.parse::<usize>().ok());
        let complete = text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() >= length.unwrap_or(0));
        if n == 0 || complete {
            return text;
        }
    }
}

async fn post(kind: &str, address: SocketAddr) -> Sent {
    let sink = Sink::new(
        settings(kind, &format!("http://{address}/hook?sig=a%2Fb")),
        links(),
        HttpTransport::new(None).unwrap(),
    );
    sink.unwrap().send(&[Alert::test(at("2026-11-22T12:00:00Z"))], at("2026-11-22T12:00:00Z")).await
}

/// Answers with fixed text and closes.
async fn saying(text: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    server(move |mut stream| async move {
        let _ = stream.write_all(text.as_bytes()).await;
    })
    .await
}

#[tokio::test]
async fn t56_addresses_go_out_verbatim_with_nothing_added() {
    let (address, requests) = saying("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(post("webhook", address).await, Sent::Delivered);
    let text = requests.lock().unwrap()[0].to_ascii_lowercase();
    assert!(text.starts_with("post /hook?sig=a%2fb http/1.1\r\n"), "{text}");
    let mut names: Vec<&str> =
        text.split("\r\n\r\n").next().unwrap().lines().skip(1).filter_map(|l| l.split(':').next()).collect();
    names.sort();
    let expected = [
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    ];
    assert_eq!(names, expected, "no cookie, no authorization");
}

#[tokio::test]
async fn t56_a_redirect_is_not_followed() {
    let (trap, caught) = saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let (address, _) = server(move |mut stream| async move {
        let answer = format!("HTTP/1.1 307 Go\r\nlocation: http://{trap}/\r\ncontent-length: 0\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    assert_eq!(post("webhook", address).await, Sent::Retry { why: "it answered 307".into(), after: None });
    assert!(caught.lock().unwrap().is_empty());
}

#[tokio::test]
async fn t56_an_endless_answer_is_read_to_its_limit() {
    let endless = |mut stream: TcpStream| async move {
        let _ = stream.write_all(b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n").await;
        while stream.write_all(format!("1000\r\n{}\r\n", "x".repeat(4096)).as_bytes()).await.is_ok() {}
    };
    let (address, _) = server(endless).await;
    let begin = std::time::Instant::now();
    let Sent::Retry { why, .. } = post("webhook", address).await else { panic!() };
    assert!(why.len() < 300, "{why}");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn answers_mean_what_they_should() {
    for (answer, kind, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "slack", Sent::Delivered),
        (
            "HTTP/1.1 429 Slow\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n",
            "slack",
            Sent::Retry { why: "it answered 429".into(), after: Some(Duration::from_secs(30)) },
        ),
        (
            "HTTP/1.1 503 No\r\nretry-after: 99999999999\r\ncontent-length: 0\r\n\r\n",
            "teams",
            Sent::Retry { why: "it answered 503".into(), after: Some(Duration::from_secs(86400)) },
        ),
        (
            "HTTP/1.1 503 No\r\nretry-after: Sun, 06 Nov 1994 08:50:37 GMT\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\n\r\n",
            "teams",
            Sent::Retry { why: "it answered 503".into(), after: Some(Duration::from_secs(60)) },
        ),
        (
            "HTTP/1.1 408 Late\r\nretry-after: soon\r\ncontent-length: 0\r\n\r\n",
            "webhook",
            Sent::Retry { why: "it answered 408".into(), after: None },
        ),
        (
            "HTTP/1.1 404 No\r\ncontent-length: 10\r\n\r\nno_service",
            "slack",
            Sent::Refused { why: "it answered 404: no_service".into() },
        ),
        (
            "HTTP/1.1 400 No\r\ncontent-length: 6\r\n\r\n\x1b[31mx",
            "pagerduty",
            Sent::Refused { why: "it answered 400: \\u{1b}[31mx".into() },
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "slack",
            Sent::Retry { why: "it answered 200, and not with the `ok` that Slack answers".into(), after: None },
        ),
        ("HTTP/1.1 202 Yes\r\ncontent-length: 100\r\n\r\ncut off", "teams", Sent::Delivered),
    ] {
        let (address, _) = saying(answer).await;
        assert_eq!(post(kind, address).await, expected, "{answer}");
    }
}

#[tokio::test]
async fn no_answer_ends_after_the_timeout_and_names_no_address() {
    let (address, _) = server(|stream| async move {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        drop(stream);
    })
    .await;
    let waiting = tokio::spawn(post("webhook", address));
    // The connection is made in real time, the waiting is not.
    tokio::time::sleep(Duration::from_millis(300)).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(16)).await;
    assert_eq!(waiting.await.unwrap(), Sent::Retry { why: "no answer within 15 s".into(), after: None });

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let slack = settings("slack", &format!("http://{closed}/services/canary"));
    let fault = send_test(&slack, &links(), at("2026-11-22T12:00:00Z")).await;
    let Err(TestFailed::NotTaken { why, .. }) = fault else { panic!() };
    assert!(why.starts_with("no connection: ") && !why.contains("canary"), "{why}");
}

#[tokio::test]
async fn t62_no_fault_shows_an_address() {
    let fault = send_test(
        &settings("slack", "https://nowhere.invalid/services/canary?sig=canary"),
        &links(),
        at("2026-11-22T12:00:00Z"),
    )
    .await
    .unwrap_err();
    assert!(!format!("{fault} {fault:?}").contains("canary"), "{fault}");
}
