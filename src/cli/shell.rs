//! `completions` and `man`: what shells and manuals know of the command line, made from its definition.

use clap::Command;
use clap_complete::Shell;

use super::fail::Failure;
use super::terminal::Terminal;

/// Print the completions of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "As in: tidewaiter completions bash > /etc/bash_completion.d/tidewaiter")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

/// Print a manual page: of the program, or of one of its commands
#[derive(Debug, clap::Args)]
#[command(after_help = "As in: tidewaiter man > tidewaiter.1; tidewaiter man policy test > tidewaiter-policy-test.1")]
pub(super) struct Man {
    /// The command, as in `check` or `policy test`
    #[arg(value_name = "COMMAND")]
    path: Vec<String>,
}

pub(super) fn completions(args: &Completions, mut command: Command, terminal: &Terminal) -> Result<u8, Failure> {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut command, "tidewaiter", &mut out);
    terminal.print(&String::from_utf8_lossy(&out))?;
    Ok(0)
}

pub(super) fn man(args: &Man, mut command: Command, terminal: &Terminal) -> Result<u8, Failure> {
    command.build();
    let mut name = "tidewaiter".to_owned();
    let mut page = &command;
    for word in &args.path {
        page = page.find_subcommand(word).ok_or_else(|| {
            let known: Vec<&str> = page.get_subcommands().map(Command::get_name).collect();
            let known = if known.is_empty() { "no commands of its own".to_owned() } else { known.join(", ") };
            Failure::say(format!("`{name}` has no command `{}`", crate::report::visible(word)))
                .help(format!("it has {known}"))
        })?;
        name = format!("{name}-{word}");
    }
    // The name by which the page is found: `man tidewaiter-check`.
    let page = page.clone().display_name(&name);
    let mut out = Vec::new();
    clap_mangen::Man::new(page)
        .title(name.to_uppercase())
        .manual("tidewaiter")
        .render(&mut out)
        .map_err(|error| Failure::say(format!("the manual page cannot be made: {error}")))?;
    terminal.print(&String::from_utf8_lossy(&out))?;
    Ok(0)
}
