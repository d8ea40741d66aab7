//! What a user would pick instead: a few lines of Python, Debian's webhook, a script.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper::Method;

use crate::acknowledge::{ROUNDS, Servers};
use crate::harness::{Figure, Goal, Pair, median};
use crate::roles::{Process, SERVER_CORE};
use crate::support::http::Http;
use crate::support::program::free_port;
use crate::support::stage::write;

const CONNECTIONS: usize = 64;
/// As little as one can write: it reads the event, keeps nothing, checks nothing.
const FASTAPI: &str = "from fastapi import FastAPI, Request\napp = FastAPI()\n\n@app.post('/v1/events/acr', status_code=202)\nasync def event(request: Request):\n    body = await request.json()\n    return {'recorded': 1, 'id': body['id']}\n";
/// The three checks of a release: the tag has not moved, it is an index of the platforms, its images are for them.
const SCRIPT: &str = r#"#!/bin/bash
set -euo pipefail
repository=$1 tag=$2 digest=$3
inspect() { skopeo inspect --cert-dir "$CERTS" "$@"; }
index=$(inspect --raw "docker://$HOST/$repository:$tag")
now=sha256:$(printf %s "$index" | sha256sum | cut -d' ' -f1)
seen=$STATE/${repository//\//_}_$tag
[ -e "$seen" ] || printf %s "$now" >"$seen"
verdict=pass
[ "$(cat "$seen")" = "$now" ] && [ "$now" = "$digest" ] || verdict=moved
want='["linux/amd64","linux/arm/v7","linux/arm64"]'
has=$(jq -c '[.manifests[].platform | .os + "/" + .architecture + (if .variant and .architecture != "arm64" then "/" + .variant else "" end)] | sort' <<<"$index")
[ "$(jq --argjson has "$has" '. - $has | length' <<<"$want")" = 0 ] || verdict=platforms
while read -r child platform; do
  config=$(inspect --config "docker://$HOST/$repository@$child")
  [ "$(jq -r '.os + "/" + .architecture' <<<"$config")" = "$platform" ] || verdict=lying
done < <(jq -r '.manifests[] | .digest + " " + .platform.os + "/" + .platform.architecture' <<<"$index")
printf %s "$verdict" >"$STATE/$tag.verdict"
"#;

/// Acknowledging, against servers that only do that.
pub fn run() -> anyhow::Result<Vec<Figure>> {
    let servers = Servers::start()?;
    let folder = servers.folder.path();
    let mut figures = Vec::new();
    let (fastapi, webhook) = (fastapi(folder)?, webhook(folder, "acr", "/bin/true", &[])?);
    for (server, name, goal) in
        [(&fastapi, "FastAPI on uvicorn", 8.0), (&webhook, "Debian's webhook running /bin/true", 50.0)]
    {
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            let (ours, _) = servers.load(&servers.intake, false, CONNECTIONS)?;
            let (theirs, _) = servers.load(server, false, CONNECTIONS)?;
            rates.push((ours.rate, theirs.rate));
        }
        let name = format!("{name}, not durable");
        figures.push(Figure::beside(
            &format!("durable acknowledgements, {CONNECTIONS} connections"),
            "/s",
            &Pair::of(&rates),
            &name,
            Goal::RatioAtLeast(goal),
        ));
    }
    Ok(figures)
}

/// Where the peer's Python lives: `bench/install.sh` makes it.
fn python() -> PathBuf {
    crate::harness::results().with_file_name("bench-venv").join("bin/python")
}

fn fastapi(folder: &Path) -> anyhow::Result<(Process, u16)> {
    write(&folder.join("peer.py"), FASTAPI)?;
    let port = free_port()?;
    let at = port.to_string();
    let arguments = [
        "-m",
        "uvicorn",
        "peer:app",
        "--port",
        &at,
        "--log-level",
        "error",
        "--no-access-log",
        "--ssl-keyfile",
        "tls.key",
        "--ssl-certfile",
        "tls.crt",
    ];
    let python = std::path::absolute(python())?;
    anyhow::ensure!(python.exists(), "there is no {}: bench/install.sh makes it", python.display());
    let mut process = Process::pinned(SERVER_CORE, &python, &arguments, folder)?;
    process.accepts(port)?;
    Ok((process, port))
}

/// Debian's webhook, which runs a command for every event.
fn webhook(folder: &Path, id: &str, command: &str, arguments: &[(&str, &str)]) -> anyhow::Result<(Process, u16)> {
    let arguments: Vec<_> =
        arguments.iter().map(|(source, name)| serde_json::json!({"source": source, "name": name})).collect();
    let hooks = serde_json::json!([{
        "id": id,
        "execute-command": command,
        "pass-arguments-to-command": arguments,
        "success-http-response-code": 202,
    }]);
    write(&folder.join("hooks.json"), &hooks.to_string())?;
    let port = free_port()?;
    let at = port.to_string();
    let flags = [
        "-hooks",
        "hooks.json",
        "-ip",
        "127.0.0.1",
        "-port",
        &at,
        "-urlprefix",
        "v1/events",
        "-secure",
        "-cert",
        "tls.crt",
        "-key",
        "tls.key",
    ];
    let mut process = Process::pinned(SERVER_CORE, Path::new("/usr/bin/webhook"), &flags, folder)?;
    process.accepts(port)?;
    Ok((process, port))
}

/// Seconds from an event to the verdict of a script, the median of pushes one after another.
pub async fn script(
    http: &Http,
    folder: &Path,
    host: &str,
    pushed: &[(String, String, String)],
) -> anyhow::Result<f64> {
    let (state, certificates) = (folder.join("state"), folder.join("certificates"));
    std::fs::create_dir_all(&state)?;
    std::fs::create_dir_all(&certificates)?;
    std::fs::copy(folder.join("ca.crt"), certificates.join("ca.crt"))?;
    let (hook, checks) = (folder.join("hook.sh"), folder.join("checks.sh"));
    // webhook passes no environment of its own on.
    let wrapper = format!(
        "#!/bin/bash\nexport HOST={host} STATE={} CERTS={}\nexec bash {} \"$@\"\n",
        state.display(),
        certificates.display(),
        checks.display(),
    );
    write(&hook, &wrapper)?;
    write(&checks, SCRIPT)?;
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let arguments = [("payload", "repository"), ("payload", "tag"), ("payload", "digest")];
    let (process, port) = webhook(folder, "check", &hook.display().to_string(), &arguments)?;
    let mut times = Vec::new();
    for (n, (repository, tag, digest)) in pushed.iter().enumerate() {
        let verdict = state.join(format!("{tag}.verdict"));
        let _ = std::fs::remove_file(&verdict);
        let body = serde_json::json!({"repository": repository, "tag": tag, "digest": digest}).to_string();
        let begun = Instant::now();
        let url = format!("https://localhost:{port}/v1/events/check");
        http.send(Method::POST, &url, &[("content-type", "application/json")], body).await?;
        while !std::fs::read(&verdict).is_ok_and(|text| !text.is_empty()) {
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(30), "the script comes to no verdict");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(begun.elapsed().as_secs_f64());
        let text = std::fs::read_to_string(&verdict)?;
        anyhow::ensure!(text == "pass", "the script says `{text}` of push {n}");
    }
    drop(process);
    Ok(median(times))
}
