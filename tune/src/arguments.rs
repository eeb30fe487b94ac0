//! The command line of `tune`.

use std::path::PathBuf;

use super::document::suggestion;

/// How the program is called.
pub const USAGE: &str = "\
Usage:
  tune [OPTIONS] EXPERIMENT.toml   run an experiment; docs/experiment-file.md describes the file
  tune control SOCKET COMMAND ...  control one that runs; `tune control` says how

Options:
  --resume          go on with the experiment in the file's store; with it, also of one that ended:
    --extend-epochs N   have every trial train N epochs in all
    --extend-trials N   have the search start N more trials
    --narrow FILE       take the Configs of trials to come from the [space] of FILE
  --check           read the file, open the data and try the model, but run nothing
  --json            write events to standard output, a line of JSON each
  --workers N       use N workers, whatever the file says
  --control SOCKET  take commands at this Unix socket
  --help            show this text
";

/// The options that [`USAGE`] lists.
fn flags() -> Vec<&'static str> {
    let words = USAGE.lines().filter_map(|line| line.split_whitespace().next());
    words.filter(|word| word.starts_with("--")).collect()
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// Run an experiment.
    Run(Options),
    /// Control one: the arguments after `control`.
    Control(Vec<String>),
    /// Show the usage.
    Help,
}

/// How an experiment is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Options {
    /// The file.
    pub file: PathBuf,
    /// Go on with what is in the store.
    pub resume: bool,
    /// What is asked of the resumed experiment before it goes on, as words of `tune control`.
    pub asked: Vec<Vec<String>>,
    /// Run nothing.
    pub check: bool,
    /// Events to standard output.
    pub json: bool,
    /// The number of workers.
    pub workers: Option<usize>,
    /// Where commands come in.
    pub control: Option<PathBuf>,
}

/// Reads the arguments after the program's name.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = arguments.into_iter();
    let mut options = Options::default();
    let mut file = None;
    while let Some(argument) = arguments.next() {
        let mut value = |what: &str| {
            arguments.next().ok_or_else(|| format!("{argument} needs {what} after it"))
        };
        match argument.as_str() {
            "control" if file.is_none() => return Ok(Arguments::Control(arguments.collect())),
            "--help" | "-h" => return Ok(Arguments::Help),
            "--resume" => options.resume = true,
            "--check" => options.check = true,
            "--json" => options.json = true,
            "--extend-epochs" | "--extend-trials" => {
                let count = value("a number")?;
                if !count.parse::<u64>().is_ok_and(|count| count > 0) {
                    return Err(format!("{argument} needs a number of at least 1, not `{count}`"));
                }
                let what = &argument["--extend-".len()..];
                options.asked.push(vec!["extend".to_owned(), what.to_owned(), count]);
            }
            "--narrow" => {
                options.asked.push(vec!["narrow".to_owned(), value("a file with a [space]")?]);
            }
            "--workers" => {
                let count = value("a number of workers")?;
                let count = count.parse().ok().filter(|&count| count > 0);
                options.workers =
                    Some(count.ok_or("--workers needs a number of at least 1 after it")?);
            }
            "--control" => options.control = Some(value("the path of a socket")?.into()),
            flag if flag.starts_with('-') => {
                let name = flag.split('=').next().unwrap_or(flag);
                return Err(format!("unknown option {flag}; {}", suggestion(name, &flags())));
            }
            _ if file.is_some() => {
                return Err(format!("one experiment at a time: what is `{argument}`?"));
            }
            _ => file = Some(PathBuf::from(argument)),
        }
    }
    options.file = file.ok_or("which experiment? Name its file")?;
    if !options.asked.is_empty() && !options.resume {
        return Err(
            "--extend-epochs, --extend-trials and --narrow change an experiment that was begun: \
                    they need --resume; for a new one, write what you want into its file"
                .to_owned(),
        );
    }
    Ok(Arguments::Run(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Arguments, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn switches_may_stand_before_or_after_the_file() {
        let options = Options {
            file: "a.toml".into(),
            resume: true,
            json: true,
            workers: Some(3),
            control: Some("s".into()),
            ..Options::default()
        };
        let expected = Ok(Arguments::Run(options));
        assert_eq!(of("--resume a.toml --json --workers 3 --control s"), expected);
        assert_eq!(of("a.toml --control s --workers 3 --json --resume"), expected);
        let control = vec!["s".to_owned(), "list".to_owned(), "--json".to_owned()];
        assert_eq!(of("control s list --json"), Ok(Arguments::Control(control)));
        assert_eq!(of("--help"), Ok(Arguments::Help));
        let Ok(Arguments::Run(extended)) = of("a.toml --extend-trials 4 --resume --narrow b.toml")
        else {
            panic!("it is in order")
        };
        assert_eq!(extended.asked, [vec!["extend", "trials", "4"], vec!["narrow", "b.toml"]]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_is_wrong() {
        for (line, expected) in [
            ("", "which experiment"),
            ("a.toml b.toml", "`b.toml`"),
            ("a.toml --worker 2", "unknown option --worker; did you mean `--workers`?"),
            ("a.toml --workers=2", "unknown option --workers=2; did you mean `--workers`?"),
            ("a.toml --resume --extend-trials some", "a number of at least 1, not `some`"),
            ("a.toml --resume --extend-epochs 0", "a number of at least 1, not `0`"),
            ("a.toml --workers", "--workers needs"),
            ("a.toml --workers 0", "at least 1"),
            ("a.toml --resume --extend-epochs", "--extend-epochs needs a number"),
            ("a.toml --extend-trials 3", "they need --resume"),
        ] {
            let refused = of(line).unwrap_err();
            assert!(refused.contains(expected), "{line}: {refused}");
        }
    }
}
