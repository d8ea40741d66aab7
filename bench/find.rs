//! Finding the policies of a repository among few and many, against one set of all globs.

use std::hint::black_box;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use tidewaiter::image::Repository;
use tidewaiter::policy::PolicySet;

use crate::harness::{Figure, Goal, Pair, in_turns};
use crate::world::set;

const ROUNDS: usize = 21;
/// Repositories asked for in turn, so that not the same path through the index is walked again and again.
const ASKED: usize = 64;

/// What the policies of an organisation govern: mostly a team's folder, some by pattern.
fn glob(n: usize) -> String {
    match n % 20 {
        0 => format!("contoso.azurecr.io/shared-{n}-*/**"),
        1 => format!("**/tool-{n}"),
        2 | 3 => format!("contoso.azurecr.io/team-{n}/*/release"),
        _ => format!("contoso.azurecr.io/team-{n}/**"),
    }
}

/// A repository that the policy of this number governs.
fn governed(n: usize) -> Repository {
    let text = match n % 20 {
        0 => format!("contoso.azurecr.io/shared-{n}-libs/x/y"),
        1 => format!("contoso.azurecr.io/some/folder/tool-{n}"),
        2 | 3 => format!("contoso.azurecr.io/team-{n}/sensor/release"),
        _ => format!("contoso.azurecr.io/team-{n}/sensor/image"),
    };
    text.parse().expect("a repository")
}

fn policies(count: usize) -> anyhow::Result<PolicySet> {
    let texts: Vec<String> = (0..count)
        .map(|n| {
            format!(
                "apiVersion: tidewaiter.dev/v1\nkind: TagPolicy\nmetadata: {{name: p{n}}}\nspec:\n  repositories: [\"{}\"]\n  classes:\n    - {{name: latest, form: latest}}\n",
                glob(n)
            )
        })
        .collect();
    set(&texts)
}

/// The globs in one set, or in as few as can be built: a set becomes one automaton, whose size is limited.
fn glob_sets(count: usize) -> anyhow::Result<Vec<GlobSet>> {
    let of = |range: std::ops::Range<usize>| {
        let mut builder = GlobSetBuilder::new();
        for n in range {
            builder.add(GlobBuilder::new(&glob(n)).literal_separator(true).build()?);
        }
        builder.build()
    };
    let mut parts = 1;
    loop {
        let each = count.div_ceil(parts);
        match (0..parts).map(|part| of(part * each..count.min((part + 1) * each))).collect() {
            Ok(sets) => return Ok(sets),
            Err(error) if each == 1 => return Err(globset::Error::into(error)),
            Err(_) => parts *= 2,
        }
    }
}

fn asked(count: usize) -> Vec<Repository> {
    (0..ASKED).map(|n| governed(n * 7_919 % count)).collect()
}

pub fn run() -> anyhow::Result<Vec<Figure>> {
    let few = policies(10)?;
    let few_asked = asked(10);
    let mut figures = Vec::new();
    for (count, goal) in [(1_000, 6.0), (100_000, 6.0)] {
        let many = policies(count)?;
        let many_asked = asked(count);
        for (n, repository) in many_asked.iter().enumerate() {
            let found: Vec<&str> = many.governing(repository).iter().map(|p| &*p.name).collect();
            anyhow::ensure!(found == [format!("p{}", n * 7_919 % count)], "{repository}: {found:?}");
        }
        let find = |set: &PolicySet, asked: &[Repository]| {
            for repository in asked {
                black_box(set.governing(repository));
            }
        };
        let pair = in_turns(ROUNDS, &mut || find(&many, &many_asked), &mut || find(&few, &few_asked));
        figures.push(Figure::beside(
            &format!("finding the policies of a repository among {}", spaced(count)),
            "ns",
            &each(&pair),
            "among 10",
            Goal::RatioAtMost(goal),
        ));
        let globs = glob_sets(count)?;
        let paths: Vec<String> = many_asked.iter().map(ToString::to_string).collect();
        let pair = in_turns(5, &mut || find(&many, &many_asked), &mut || {
            for path in &paths {
                for set in &globs {
                    black_box(set.matches(path));
                }
            }
        });
        let built = if globs.len() == 1 { String::new() } else { format!("; more than one: {} sets", globs.len()) };
        figures.push(
            Figure::beside(
                &format!("finding the policies of a repository among {}", spaced(count)),
                "ns",
                &each(&pair),
                "one GlobSet of the same globs",
                Goal::RatioAtMost(0.1),
            )
            .noted(&format!("the goal is ten times faster{built}")),
        );
    }
    Ok(figures)
}

fn each(pair: &Pair) -> Pair {
    pair.scaled(1e9 / ASKED as f64)
}

fn spaced(count: usize) -> String {
    if count >= 1_000 { format!("{},000", count / 1_000) } else { count.to_string() }
}
