//! The names of the output formats, and `-o FORMAT` or `-o FORMAT=FILE` as typed.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A way to write a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// For people.
    Text,
    /// The report of the published surface, one document.
    Json,
    /// One verdict per line, for audits of large registries.
    Jsonl,
    /// JUnit XML: a suite is an image reference, a case a requirement.
    Junit,
    /// SARIF 2.1.0.
    Sarif,
    /// Workflow commands of GitHub Actions.
    Github,
    /// Logging commands of Azure Pipelines.
    AzureDevops,
    /// A job summary in Markdown.
    Markdown,
    /// `wgpolicyk8s.io/v1alpha2` `PolicyReport` objects, as JSON.
    PolicyReport,
    /// `openreports.io/v1alpha1` `Report` objects, as JSON.
    OpenReports,
}

/// Why what was typed after `-o` is no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Not a format's name.
    #[error("`{0}` is not a format: use one of {list}", list = Format::names())]
    Unknown(String),
    /// Nothing after the `=`.
    #[error("`{0}=` names no file: write `{0}=FILE`, or `{0}` alone for standard output")]
    NoFile(Format),
}

impl Format {
    /// Every format, in the order of the help.
    pub const ALL: &'static [Format] = &[
        Format::Text,
        Format::Json,
        Format::Jsonl,
        Format::Junit,
        Format::Sarif,
        Format::Github,
        Format::AzureDevops,
        Format::Markdown,
        Format::PolicyReport,
        Format::OpenReports,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Json => "json",
            Format::Jsonl => "jsonl",
            Format::Junit => "junit",
            Format::Sarif => "sarif",
            Format::Github => "github",
            Format::AzureDevops => "azure-devops",
            Format::Markdown => "markdown",
            Format::PolicyReport => "policyreport",
            Format::OpenReports => "openreports",
        }
    }

    fn names() -> String {
        Format::ALL.iter().map(|f| f.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Format, FormatError> {
        let found = Format::ALL.iter().find(|f| f.as_str() == text);
        found.copied().ok_or_else(|| FormatError::Unknown(super::visible(text)))
    }
}

/// One output: a format, and the file that it goes to instead of standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The format.
    pub format: Format,
    /// The file; `None` is standard output.
    pub file: Option<PathBuf>,
}

impl FromStr for Output {
    type Err = FormatError;

    /// Parses `FORMAT` or `FORMAT=FILE`; `FORMAT=-` is standard output.
    fn from_str(text: &str) -> Result<Output, FormatError> {
        let Some((format, file)) = text.split_once('=') else {
            return Ok(Output { format: text.parse()?, file: None });
        };
        let format: Format = format.parse()?;
        match file {
            "" => Err(FormatError::NoFile(format)),
            "-" => Ok(Output { format, file: None }),
            file => Ok(Output { format, file: Some(file.into()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_parsed() {
        for format in Format::ALL {
            assert_eq!(format.as_str().parse::<Format>().as_ref(), Ok(format));
        }
        assert_eq!("sarif".parse(), Ok(Output { format: Format::Sarif, file: None }));
        assert_eq!("junit=a=b.xml".parse(), Ok(Output { format: Format::Junit, file: Some("a=b.xml".into()) }));
        assert_eq!("json=-".parse(), Ok(Output { format: Format::Json, file: None }));
        assert_eq!("json=".parse::<Output>(), Err(FormatError::NoFile(Format::Json)));
        let fault = "yaml".parse::<Output>().unwrap_err().to_string();
        assert!(fault.starts_with("`yaml` is not a format: use one of text, json,"), "{fault}");
    }
}
