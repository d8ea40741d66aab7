//! Image layouts on disk as a source of content: `oci:DIR[:NAME]` and `oci-archive:FILE[:NAME]` (OCI image
//! specification, image-layout.md). Answers with the same verified [`Fetched`] as a registry does.
//!
//! Reads only `oci-layout`, `index.json` and blobs named by a checked digest, bounded, and nothing outside the
//! layout. Blocking: for the command line, or a blocking task.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::client::Fetched;
use super::error::{RegistryError, remote_text};
use crate::image::{Digest, ENTRIES_MAX, MANIFEST_BYTES_MAX, MediaType};

/// Most members of an archive that are looked at: an index of a thousand images with some layers each.
const MEMBERS_MAX: usize = 65_536;
/// The block of the tar format, in bytes.
const BLOCK: usize = 512;
/// The annotation that holds an image's name in a layout.
const NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// Where a layout is and which of its images is meant, as the container tools write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutReference {
    /// The folder, or the archive.
    pub path: PathBuf,
    /// Whether it is an archive.
    pub archive: bool,
    /// The name within, where one is given.
    pub name: Option<String>,
}

impl LayoutReference {
    /// Reads `oci:DIR[:NAME]` or `oci-archive:FILE[:NAME]`; `None` for anything else. As in the container tools,
    /// the path ends at the first colon, because a name may have more of them.
    pub fn parse(text: &str) -> Option<LayoutReference> {
        let (archive, rest) = match text.split_once(':')? {
            ("oci", rest) => (false, rest),
            ("oci-archive", rest) => (true, rest),
            _ => return None,
        };
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) => (path, Some(name.to_owned())),
            None => (rest, None),
        };
        Some(LayoutReference { path: path.into(), archive, name }).filter(|r| !r.path.as_os_str().is_empty())
    }
}

/// One image of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, where it has one: a tag or a whole reference, as whoever made the layout saw fit.
    pub name: Option<String>,
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
}

/// An open layout.
#[derive(Debug)]
pub struct Layout {
    files: Files,
    entries: Vec<Entry>,
}

#[derive(Debug)]
enum Files {
    /// The canonical path of the folder.
    Folder(PathBuf),
    /// The archive, and where in it the bytes of each regular member are.
    Archive { path: PathBuf, members: BTreeMap<String, (u64, u64)> },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct IndexFile {
    manifests: Vec<EntryFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryFile {
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Layout {
    /// Opens what a reference names and reads its index.
    pub fn open(reference: &LayoutReference) -> Result<Layout, RegistryError> {
        let path = &reference.path;
        let files = if reference.archive {
            let members = members(path).map_err(|error| local(path, &error.to_string()))?;
            Files::Archive { path: path.clone(), members }
        } else {
            Files::Folder(path.canonicalize().map_err(|error| local(path, &error.to_string()))?)
        };
        let marker: Marker = files.json("oci-layout")?;
        if !marker.image_layout_version.starts_with("1.") {
            return Err(files.fault("its `oci-layout` names a version other than 1"));
        }
        let index: IndexFile = files.json("index.json")?;
        if index.manifests.len() > ENTRIES_MAX {
            return Err(files.fault(&format!("its `index.json` has more than {ENTRIES_MAX} entries")));
        }
        let entries = index.manifests.into_iter().map(|entry| {
            let digest = entry.digest.parse().map_err(|error| files.fault(&format!("`index.json`: {error}")))?;
            let name = entry.annotations.get(NAME_ANNOTATION).cloned();
            Ok(Entry { name, digest, media_type: MediaType::parse(&entry.media_type) })
        });
        let entries = entries.collect::<Result<Vec<Entry>, RegistryError>>()?;
        Ok(Layout { files, entries })
    }

    /// The images of the layout.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The image of that name; without a name, the only image.
    pub fn resolve(&self, name: Option<&str>) -> Result<Fetched, RegistryError> {
        let mut fitting = self.entries.iter().filter(|entry| name.is_none() || entry.name.as_deref() == name);
        let entry = match (fitting.next(), fitting.next()) {
            (Some(entry), None) => entry,
            (Some(first), Some(second)) if name.is_some() && first.digest == second.digest => first,
            (found, _) => return Err(self.files.fault(&self.choice(name, found.is_some()))),
        };
        let fetched = self.fetch_manifest(&entry.digest, &entry.media_type)?;
        fetched.ok_or_else(|| self.files.fault(&format!("{} is in its index but not among its blobs", entry.digest)))
    }

    /// The manifest of `digest`, verified, with the media type that its descriptor states.
    pub fn fetch_manifest(&self, digest: &Digest, media_type: &MediaType) -> Result<Option<Fetched>, RegistryError> {
        let bytes = self.fetch_blob(digest, MANIFEST_BYTES_MAX as u64)?;
        Ok(bytes.map(|bytes| Fetched { digest: digest.clone(), media_type: media_type.clone(), bytes: bytes.into() }))
    }

    /// The blob of `digest`, verified, of at most `bytes_max` bytes.
    pub fn fetch_blob(&self, digest: &Digest, bytes_max: u64) -> Result<Option<Vec<u8>>, RegistryError> {
        let name = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        let Some(bytes) = self.files.read(&name, bytes_max)? else { return Ok(None) };
        let actual = Digest::with(digest.algorithm(), &bytes);
        if actual != *digest {
            return Err(RegistryError::DigestMismatch { expected: digest.clone(), actual });
        }
        Ok(Some(bytes))
    }

    fn choice(&self, asked: Option<&str>, several: bool) -> String {
        let mut names: Vec<&str> = self.entries.iter().filter_map(|entry| entry.name.as_deref()).collect();
        names.truncate(8);
        let names = remote_text(names.join(", ").as_bytes());
        let asked = asked.map(|asked| remote_text(asked.as_bytes()));
        match (asked, several) {
            (Some(asked), true) => format!("it has several images of the name `{asked}`"),
            (Some(asked), false) => format!("it has no image of the name `{asked}`, only: {names}"),
            (None, true) => format!("it has several images: add `:NAME` with one of: {names}"),
            (None, false) => "it has no image".to_owned(),
        }
    }
}

impl Files {
    fn fault(&self, why: &str) -> RegistryError {
        match self {
            Files::Folder(path) | Files::Archive { path, .. } => local(path, why),
        }
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, RegistryError> {
        let bytes = self.read(name, MANIFEST_BYTES_MAX as u64)?;
        let bytes = bytes.ok_or_else(|| self.fault(&format!("it has no `{name}`, so it is no OCI image layout")))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            self.fault(&format!("its `{name}` cannot be read: {}", remote_text(error.to_string().as_bytes())))
        })
    }

    /// The bytes of a member; `None` if there is none of that name. `name` is one of ours or made from a digest.
    fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, RegistryError> {
        let io_fault = |error: io::Error| self.fault(&format!("`{name}`: {error}"));
        let mut file = match self {
            Files::Folder(root) => {
                let path = match root.join(name).canonicalize() {
                    Ok(path) => path,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(io_fault(error)),
                };
                // A link may lead anywhere; a pipe would never end.
                if !path.starts_with(root) || !fs::metadata(&path).map_err(io_fault)?.is_file() {
                    return Err(self.fault(&format!("`{name}` is not a plain file within it")));
                }
                File::open(path).map_err(io_fault)?.take(u64::MAX)
            }
            Files::Archive { path, members } => {
                let Some((offset, size)) = members.get(name) else { return Ok(None) };
                let mut file = File::open(path).map_err(io_fault)?;
                file.seek(SeekFrom::Start(*offset)).map_err(io_fault)?;
                file.take(*size)
            }
        };
        let mut bytes = Vec::new();
        file.by_ref().take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(io_fault)?;
        if bytes.len() as u64 > bytes_max {
            return Err(RegistryError::TooLarge { limit: bytes_max });
        }
        Ok(Some(bytes))
    }
}

fn local(path: &Path, why: &str) -> RegistryError {
    RegistryError::Local(format!("`{}` is not usable: {why}", remote_text(path.as_os_str().as_encoded_bytes())))
}

/// Where the regular members of a tar archive are (POSIX ustar). Nothing is unpacked, and no length in the
/// archive reserves memory. Members with extended headers are found by their short names only: the names of a
/// layout fit, and content is verified anyway.
fn members(path: &Path) -> io::Result<BTreeMap<String, (u64, u64)>> {
    let fault = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(fault("it is not a plain file"));
    }
    let mut members = BTreeMap::new();
    let (mut offset, mut count) = (0, 0);
    loop {
        let mut header = [0; BLOCK];
        match file.read_exact(&mut header) {
            Ok(()) => {}
            // Some writers leave out the two empty blocks at the end.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && count > 0 => return Ok(members),
            Err(_) => return Err(fault("it is not a tar archive")),
        }
        offset += BLOCK as u64;
        if header.iter().all(|b| *b == 0) {
            return Ok(members);
        }
        count += 1;
        if count > MEMBERS_MAX {
            return Err(fault("it has too many members"));
        }
        let sum = header.iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { 32 } else { u64::from(*b) });
        if octal(&header[148..156]) != Some(sum.sum()) {
            return Err(fault("it is not a tar archive, or it is compressed: unpack it with `gunzip` first"));
        }
        let size = octal(&header[124..136]).ok_or_else(|| fault("a member of it is too large"))?;
        if matches!(header[156], b'0' | 0) {
            let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
            let name =
                if header[257..262] == *b"ustar" && !prefix.is_empty() { format!("{prefix}/{name}") } else { name };
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            // Which of two would count depends on the reader.
            if members.insert(name, (offset, size)).is_some() {
                return Err(fault("two members of it have the same name"));
            }
        }
        let padded = size.checked_next_multiple_of(BLOCK as u64).and_then(|padded| offset.checked_add(padded));
        offset = padded.ok_or_else(|| fault("a member of it is too large"))?;
        file.seek(SeekFrom::Start(offset))?;
    }
}

/// A field that ends at the first zero.
fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

fn octal(field: &[u8]) -> Option<u64> {
    u64::from_str_radix(text(field).trim_matches(' '), 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// A layout of two images, `1.0` and `2.0`, whose manifests are `{"n":1}` and `{"n":2}`.
    fn layout() -> (tempfile::TempDir, Digest) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        let entry = |n: u32| {
            let bytes = format!(r#"{{"n":{n}}}"#);
            let digest = Digest::of(bytes.as_bytes());
            write(dir.path(), &format!("blobs/sha256/{}", digest.hex()), bytes);
            serde_json::json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest.as_str(),
                "size": 7, "annotations": {NAME_ANNOTATION: format!("{n}.0")}})
        };
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry(1), entry(2)]});
        write(dir.path(), "index.json", index.to_string());
        (dir, Digest::of(br#"{"n":1}"#))
    }

    fn folder(path: &Path) -> LayoutReference {
        LayoutReference { path: path.into(), archive: false, name: None }
    }

    fn archive(path: &Path) -> LayoutReference {
        LayoutReference { archive: true, ..folder(path) }
    }

    fn tar(dir: &Path, extra: &[&str]) -> PathBuf {
        let file = dir.join("layout.tar");
        let mut command = std::process::Command::new("tar");
        let done =
            command.arg("-cf").arg(&file).arg("-C").arg(dir).args(extra).args(["oci-layout", "index.json", "blobs"]);
        assert!(done.status().unwrap().success());
        file
    }

    #[test]
    fn references_are_read_as_the_container_tools_do() {
        let parse = |text| LayoutReference::parse(text).map(|r| (r.path.display().to_string(), r.archive, r.name));
        assert_eq!(parse("oci:dir"), Some(("dir".into(), false, None)));
        assert_eq!(parse("oci:/a/b:1.0"), Some(("/a/b".into(), false, Some("1.0".into()))));
        assert_eq!(
            parse("oci-archive:f.tar:docker.io/x:1"),
            Some(("f.tar".into(), true, Some("docker.io/x:1".into())))
        );
        for other in ["r.io/x:1", "oci", "oci:", "oci::1", "docker:x"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn folders_and_archives_say_the_same() {
        let (dir, first) = layout();
        let file = tar(dir.path(), &[]);
        for reference in [folder(dir.path()), archive(&file), archive(&tar(dir.path(), &["--format=posix"]))] {
            let layout = Layout::open(&reference).unwrap();
            let fetched = layout.resolve(Some("1.0")).unwrap();
            assert_eq!((&fetched.digest, &fetched.media_type), (&first, &MediaType::OciIndex));
            assert_eq!(fetched.bytes, &br#"{"n":1}"#[..]);
            assert_eq!(layout.entries().len(), 2);
            assert_eq!(layout.fetch_blob(&Digest::of(b"absent"), 9).unwrap(), None);
            assert_eq!(layout.fetch_blob(&first, 6), Err(RegistryError::TooLarge { limit: 6 }));
            for (name, word) in [(None, "several images"), (Some("3.0"), "no image of the name")] {
                let error = layout.resolve(name).unwrap_err().to_string();
                assert!(error.contains(word) && error.contains("1.0, 2.0"), "{error}");
            }
        }
    }

    #[test]
    fn t29_a_changed_blob_is_refused() {
        let (dir, first) = layout();
        write(dir.path(), &format!("blobs/sha256/{}", first.hex()), r#"{"n":3}"#);
        let error = Layout::open(&folder(dir.path())).unwrap().resolve(Some("1.0")).unwrap_err();
        assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
    }

    #[test]
    fn t21_nothing_outside_the_layout_is_read() {
        let (dir, first) = layout();
        let outside = tempfile::tempdir().unwrap();
        write(outside.path(), "secret", r#"{"n":1}"#);
        let blob = dir.path().join(format!("blobs/sha256/{}", first.hex()));
        fs::remove_file(&blob).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), &blob).unwrap();
        let error = Layout::open(&folder(dir.path())).unwrap().resolve(Some("1.0")).unwrap_err();
        assert!(matches!(error, RegistryError::Local(_)), "{error}");
        let index = r#"{"manifests":[{"mediaType":"x","digest":"sha256:../../../../etc/passwd"}]}"#;
        write(dir.path(), "index.json", index);
        assert!(Layout::open(&folder(dir.path())).is_err());
    }

    #[test]
    fn t31_what_is_no_layout_says_so() {
        let (dir, _) = layout();
        let good = fs::read(tar(dir.path(), &[])).unwrap();
        let file = dir.path().join("bad.tar");
        for bytes in [b"".to_vec(), vec![1; 2_000], vec![0x1f, 0x8b], good[..700].to_vec()] {
            fs::write(&file, &bytes).unwrap();
            assert!(Layout::open(&archive(&file)).is_err(), "{} bytes", bytes.len());
        }
        let doubled = std::process::Command::new("tar")
            .arg("-rf")
            .arg(dir.path().join("layout.tar"))
            .arg("-C")
            .arg(dir.path())
            .arg("index.json")
            .status()
            .unwrap();
        assert!(doubled.success());
        let error = Layout::open(&archive(&dir.path().join("layout.tar"))).unwrap_err().to_string();
        assert!(error.contains("same name"), "{error}");
        for absent in ["oci-layout", "index.json"] {
            let (dir, _) = layout();
            fs::remove_file(dir.path().join(absent)).unwrap();
            assert!(Layout::open(&folder(dir.path())).unwrap_err().to_string().contains(absent));
        }
        assert!(Layout::open(&folder(Path::new("/no/such"))).is_err());
    }
}
