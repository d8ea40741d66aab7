//! A registry that may do anything, written on bare sockets because a real server library would not lie about
//! lengths, drip or hang. It answers each request by a function, and keeps what it saw.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::tls::{Ca, Issued};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub at: tokio::time::Instant,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
}

/// What comes after the body that was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Close,
    /// Nothing, and the connection stays open.
    Hang,
    /// A byte now and then, for ever.
    Drip,
    /// As many bytes as are taken, for ever.
    Flood,
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub then: Then,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, headers: vec![], body: body.into(), then: Then::Close }
    }

    /// Nothing at all, for ever.
    pub fn silence() -> Reply {
        Reply::new(0, "")
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn then(mut self, then: Then) -> Reply {
        self.then = then;
        self
    }

    /// An error in the protocol's form.
    pub fn error(status: u16, code: &str) -> Reply {
        Reply::new(status, format!(r#"{{"errors":[{{"code":"{code}","message":"m"}}]}}"#))
    }
}

type Answer = dyn Fn(&Seen) -> Reply + Send + Sync;

pub struct Fake {
    pub scheme: &'static str,
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    /// Over plain http.
    pub async fn http(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
        Fake::start(None, Arc::new(answer)).await
    }

    /// Over https with a good certificate for loopback.
    pub async fn https(ca: &Ca, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
        Fake::start(Some(ca.issue(&["localhost", "127.0.0.1"])), Arc::new(answer)).await
    }

    /// Over https with this certificate.
    pub async fn https_as(issued: Issued, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
        Fake::start(Some(issued), Arc::new(answer)).await
    }

    async fn start(issued: Option<Issued>, answer: Arc<Answer>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if issued.is_some() { "https" } else { "http" };
        let acceptor = issued.map(acceptor);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log, answer) = (acceptor.clone(), log.clone(), answer.clone());
                tokio::spawn(async move {
                    match acceptor {
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => serve(stream, log, answer).await,
                            Err(error) => Err(error),
                        },
                        None => serve(stream, log, answer).await,
                    }
                });
            }
        });
        Fake { scheme, port, seen, task }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.host())
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// All values of `Authorization` so far.
    pub fn authorizations(&self) -> Vec<String> {
        self.seen().iter().filter_map(|seen| seen.header("authorization").map(str::to_owned)).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn acceptor(issued: Issued) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// One request per connection.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    log: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<Answer>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut seen = Seen { method, target, headers, body: vec![], at: tokio::time::Instant::now() };
    let length = seen.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    seen.body = vec![0; length];
    stream.read_exact(&mut seen.body).await?;
    log.lock().unwrap().push(seen.clone());
    let reply = answer(&seen);
    if reply.status == 0 {
        // Not a word.
        tokio::time::sleep(Duration::from_secs(3_600)).await;
    }

    let mut out = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    let lengthless = !reply.headers.iter().any(|(name, _)| name == "content-length" || name == "transfer-encoding");
    if lengthless && reply.then == Then::Close {
        out.push_str(&format!("content-length: {}\r\n", reply.body.len()));
    }
    out.push_str("\r\n");
    stream.write_all(out.as_bytes()).await?;
    if seen.method != "HEAD" {
        stream.write_all(&reply.body).await?;
    }
    stream.flush().await?;
    loop {
        match reply.then {
            Then::Close => return stream.shutdown().await,
            Then::Hang => tokio::time::sleep(Duration::from_secs(3_600)).await,
            Then::Drip => {
                stream.write_all(b" ").await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Then::Flood => stream.write_all(&[b' '; 64 << 10]).await?,
        }
    }
}
