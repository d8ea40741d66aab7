//! `image`, the project's own: writes the container image into an OCI layout, without an engine. `make image` builds
//! the static programs and calls it; `skopeo copy --all oci:DIR:VERSION docker://…` pushes what it wrote.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::Parser;

mod bill;
mod oci;

/// Writes the container image into an OCI layout. The same files give the same digest.
#[derive(Parser)]
#[command(name = "image")]
struct Cli {
    /// A program for a target: x86_64-unknown-linux-gnu=PATH; may be repeated
    #[arg(long = "program", value_name = "TARGET=PATH", required = true)]
    programs: Vec<Program>,
    /// What is in the image of a target (or of `any`) beside the program's own packages, with its licence and the file
    /// of its notice: TARGET/NAME=VERSION=LICENCE=PATH; may be repeated
    #[arg(long = "foreign", value_name = "TARGET/NAME=VERSION=LICENCE=PATH")]
    foreign: Vec<Package>,
    /// Where the layout is written, in place of the one there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The commit that the programs were built from
    #[arg(long, default_value = "unknown")]
    revision: String,
    /// The authorities that are trusted, in PEM; a machine's own list may have some of its own
    #[arg(long, value_name = "FILE")]
    authorities: PathBuf,
}

#[derive(Clone)]
struct Program {
    target: String,
    architecture: &'static str,
    path: PathBuf,
}

impl FromStr for Program {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Program> {
        let (target, path) = text.split_once('=').context("write TARGET=PATH")?;
        let architecture = match target.split('-').next() {
            Some("x86_64") => "amd64",
            Some("aarch64") => "arm64",
            _ => bail!("`{target}`: images are made for x86_64 and aarch64"),
        };
        Ok(Program { target: target.to_owned(), architecture, path: path.into() })
    }
}

#[derive(Clone)]
struct Package {
    target: String,
    what: bill::Foreign,
    /// The notice that goes with it.
    notice: Vec<u8>,
}

impl FromStr for Package {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Package> {
        let fields: Vec<&str> = text.splitn(4, '=').collect();
        let [name, version, license, path] = fields[..] else { bail!("write TARGET/NAME=VERSION=LICENCE=PATH") };
        let (target, name) = name.split_once('/').context("write TARGET/NAME=VERSION=LICENCE=PATH")?;
        let notice = fs::read(path).with_context(|| path.to_owned())?;
        let (name, version, license) = (name.to_owned(), version.to_owned(), license.to_owned());
        Ok(Package { target: target.to_owned(), what: bill::Foreign { name, version, license }, notice })
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &PathBuf| fs::read(path).with_context(|| path.display().to_string());
    let mut parts = Vec::new();
    for program in &cli.programs {
        let scopes = [program.target.as_str(), "any"];
        let here: Vec<&Package> = cli.foreign.iter().filter(|one| scopes.contains(&one.target.as_str())).collect();
        let foreign: Vec<bill::Foreign> = here.iter().map(|package| package.what.clone()).collect();
        let bill = bill::of(env!("CARGO"), &root, &program.target, &foreign)?;
        let mut notices: BTreeMap<String, Vec<u8>> =
            here.iter().map(|one| (format!("{}/copyright", one.what.name), one.notice.clone())).collect();
        notices.insert("tidewaiter/THIRD-PARTY".to_owned(), bill.notices);
        let (architecture, binary) = (program.architecture.to_owned(), read(&program.path)?);
        parts.push(oci::Part { architecture, binary, sbom: bill.sbom, notices });
    }
    let (authorities, license) = (read(&cli.authorities)?, read(&root.join("LICENSE"))?);
    let common = oci::Common {
        version: env!("CARGO_PKG_VERSION"),
        revision: &cli.revision,
        authorities: &authorities,
        license: &license,
    };
    let written = oci::write(&cli.out, &common, &parts)?;
    for (architecture, digest, bytes) in written.images {
        println!("linux/{architecture}  {digest}  {:.1} MB compressed", bytes as f64 / 1e6);
    }
    println!("oci:{}:{}  {}", cli.out.display(), common.version, written.digest);
    Ok(())
}
