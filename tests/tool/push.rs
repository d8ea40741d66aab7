//! `push`, the project's own test tool: makes small images, right and wrong ones, and puts them into a registry.
//!
//! `cargo run --example push -- index localhost:5443/iot/sensor:1.0.1 --platforms linux/amd64,linux/arm64`.
//! It needs no engine and no configuration, and is not installed with the program.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};

#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../support/http.rs"]
mod http;
#[path = "../support/images.rs"]
mod images;
#[path = "../support/push.rs"]
mod push;

use images::{Build, Fault, Form, Index, Platform};
use push::Pusher;

/// Makes small images, right and wrong ones, and puts them into a registry.
#[derive(Parser)]
#[command(name = "push", after_help = "What is printed is REFERENCE@DIGEST. The same words give the same digest.")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    way: Way,
}

/// How the registry is reached.
#[derive(Args)]
struct Way {
    /// The certificate authority of the registry, in PEM
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Speak http
    #[arg(long, global = true, conflicts_with = "ca")]
    plain_http: bool,
    /// Sign in with a name and a password
    #[arg(long, global = true, value_name = "NAME:PASSWORD")]
    user: Option<String>,
}

#[derive(Subcommand)]
enum Verb {
    /// An index over one image for each platform
    Index {
        /// Where to: HOST/REPOSITORY:TAG
        reference: Reference,
        /// The platforms, in this order
        #[arg(long, value_delimiter = ',', required = true)]
        platforms: Vec<Platform>,
        #[command(flatten)]
        content: Content,
        /// An attestation beside every image, as BuildKit adds one
        #[arg(long)]
        attested: bool,
        /// Also tag every image TAG-OS-ARCH[-VARIANT]
        #[arg(long)]
        tag_images: bool,
        /// Something wrong with it, at the last platform
        #[arg(long = "fault", value_name = "FAULT")]
        faults: Vec<Fault>,
    },
    /// A single image
    Image {
        /// Where to: HOST/REPOSITORY:TAG
        reference: Reference,
        /// Its platform
        #[arg(long, default_value = "linux/amd64")]
        platform: Platform,
        #[command(flatten)]
        content: Content,
    },
    /// A Helm chart; the tag is its version
    Chart {
        /// Where to: HOST/REPOSITORY:TAG
        reference: Reference,
    },
    /// A signature as cosign stores one, beside what the tag leads to
    Signature {
        /// What is signed: HOST/REPOSITORY:TAG
        reference: Reference,
    },
    /// A second tag for what a tag leads to
    Tag {
        /// What there is: HOST/REPOSITORY:TAG
        reference: Reference,
        /// The new tag, in the same repository
        tag: String,
    },
    /// Deletes what a tag leads to, and so all its tags; with --untag only the tag, where a registry can do that
    Delete {
        /// What there is: HOST/REPOSITORY:TAG
        reference: Reference,
        /// Delete the tag only
        #[arg(long)]
        untag: bool,
    },
}

#[derive(Args)]
struct Content {
    /// Goes into every layer, so that another word gives another digest; the tag if not given
    #[arg(long)]
    version: Option<String>,
    /// The family of media types
    #[arg(long, value_enum, default_value_t)]
    form: Form,
}

#[derive(Clone)]
struct Reference {
    host: String,
    repository: String,
    tag: String,
}

impl std::str::FromStr for Reference {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Reference> {
        let parts = text.split_once('/').and_then(|(host, rest)| Some((host, rest.rsplit_once(':')?)));
        let Some((host, (repository, tag))) = parts else {
            bail!("`{text}` is not HOST/REPOSITORY:TAG, as in localhost:5443/iot/sensor:1.0.1");
        };
        Ok(Reference { host: host.to_owned(), repository: repository.to_owned(), tag: tag.to_owned() })
    }
}

impl Reference {
    /// What is printed: the name, and the digest it now leads to.
    fn at(&self, tag: &str, digest: &str) -> String {
        format!("{}/{}:{tag}@{digest}", self.host, self.repository)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Cli { verb, way }: Cli) -> anyhow::Result<()> {
    match verb {
        Verb::Index { reference, platforms, content, attested, tag_images, faults } => {
            let version = content.version.as_deref().unwrap_or(&reference.tag);
            let index = Index { platforms: &platforms, version, form: content.form, attested, faults: &faults };
            let build = index.build()?;
            put(&way, &reference, &reference.tag, &build).await?;
            let images = build.children.iter().filter(|child| tag_images && !child.vanishes);
            for (child, platform) in images.filter_map(|child| Some((child, child.platform.as_ref()?))) {
                let tag = format!("{}-{platform}", reference.tag);
                let digest = way.to(&reference)?.manifest(&reference.repository, &tag, &child.manifest).await?;
                println!("{}", reference.at(&tag, &digest));
            }
            Ok(())
        }
        Verb::Image { reference, platform, content } => {
            let version = content.version.as_deref().unwrap_or(&reference.tag);
            put(&way, &reference, &reference.tag, &images::image(&platform, version, content.form)).await
        }
        Verb::Chart { reference } => {
            let name = reference.repository.rsplit('/').next().context("a repository has a name")?;
            put(&way, &reference, &reference.tag, &images::chart(name, &reference.tag)).await
        }
        Verb::Signature { reference } => {
            let digest = way.to(&reference)?.resolve(&reference.repository, &reference.tag).await?;
            let name = format!("{}/{}", reference.host, reference.repository);
            put(&way, &reference, &images::signature_tag(&digest), &images::signature(&name, &digest)).await
        }
        Verb::Tag { reference, tag } => {
            let digest = way.to(&reference)?.tag(&reference.repository, &reference.tag, &tag).await?;
            println!("{}", reference.at(&tag, &digest));
            Ok(())
        }
        Verb::Delete { reference, untag } => {
            let pusher = way.to(&reference)?;
            let what = match untag {
                true => reference.tag,
                false => pusher.resolve(&reference.repository, &reference.tag).await?,
            };
            pusher.delete(&reference.repository, &what).await
        }
    }
}

async fn put(way: &Way, reference: &Reference, tag: &str, build: &Build) -> anyhow::Result<()> {
    let digest = way.to(reference)?.push(&reference.repository, tag, build).await?;
    println!("{}", reference.at(tag, &digest));
    Ok(())
}

impl Way {
    fn to(&self, reference: &Reference) -> anyhow::Result<Pusher> {
        let scheme = if self.plain_http { "http" } else { "https" };
        let ca = match &self.ca {
            Some(file) => Some(std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?),
            None => None,
        };
        let http = http::Http::new(ca.as_deref())?;
        Ok(Pusher::new(http, &format!("{scheme}://{}", reference.host), self.user.as_deref()))
    }
}
