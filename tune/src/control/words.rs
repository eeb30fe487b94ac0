//! From the words of a command line to a request.

use cerebro_core::experiment::Command;
use cerebro_core::{Config, Space};
use serde_json::{Value, json};

use crate::document::{Document, Table, suggestion};
use crate::space;

const COMMANDS: [&str; 11] = [
    "list", "watch", "pause", "resume", "stop", "clone", "add", "extend", "narrow", "priority",
    "json",
];

/// The command that the words make, which is one of the experiment's own.
pub fn command(words: &[String]) -> Result<Command, String> {
    serde_json::from_value(request(words)?).map_err(|error| format!("this is no command: {error}"))
}

/// The request that the words make.
pub(super) fn request(words: &[String]) -> Result<Value, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (name, rest) = words.split_first().ok_or("which command?")?;
    match (*name, rest) {
        ("list" | "watch", []) => Ok(json!({ "command": name })),
        ("pause", []) => Ok(json!({ "command": "pause_all" })),
        ("resume", []) => Ok(json!({ "command": "resume_all" })),
        ("stop", []) => Ok(json!({ "command": "stop" })),
        ("pause" | "resume" | "stop", [trial]) => {
            Ok(json!({ "command": format!("{name}_trial"), "trial": number(trial, "a trial")? }))
        }
        ("clone", [trial, rest @ ..]) => clone(trial, rest),
        ("add", changes @ [_, ..]) => {
            Ok(json!({ "command": "add_trial", "config": config(changes)? }))
        }
        ("extend", ["epochs", count]) => {
            Ok(json!({ "command": "extend_epochs", "epochs": number(count, "epochs")? }))
        }
        ("extend", ["trials", count]) => {
            Ok(json!({ "command": "extend_trials", "trials": number(count, "trials")? }))
        }
        ("narrow", [file]) => Ok(json!({ "command": "narrow", "space": read_space(file)? })),
        ("priority", [trial, level]) => {
            let level: i32 = level
                .parse()
                .ok()
                .filter(|level| (-10..=10).contains(level))
                .ok_or_else(|| format!("`{level}` is no priority: those are -10 to 10"))?;
            let trial = number(trial, "a trial")?;
            Ok(json!({ "command": "set_priority", "trial": trial, "priority": level }))
        }
        ("json", [line]) => {
            serde_json::from_str(line).map_err(|error| format!("this is no JSON: {error}"))
        }
        (known, rest) if COMMANDS.contains(&known) => Err(match rest {
            [] => format!("`{known}` needs words after it"),
            rest => format!("`{known}` does not take `{}`", rest.join(" ")),
        }),
        (unknown, _) => {
            Err(format!("unknown command `{unknown}`; {}", suggestion(unknown, &COMMANDS)))
        }
    }
}

fn clone(trial: &str, rest: &[&str]) -> Result<Value, String> {
    let (start, changes) = match rest {
        ["--from", start, changes @ ..] => (*start, changes),
        changes => ("cold", changes),
    };
    if !["cold", "latest", "best"].contains(&start) {
        return Err(format!("a clone starts from `cold`, `latest` or `best`, not from `{start}`"));
    }
    let trial = number(trial, "a trial")?;
    let changes = config(changes)?;
    Ok(json!({ "command": "clone_trial", "trial": trial, "changes": changes, "start": start }))
}

/// A number as it is, or as people write trials: `trial-3`.
fn number(word: &str, what: &str) -> Result<u64, String> {
    let digits = word.strip_prefix("trial-").unwrap_or(word);
    digits.parse().map_err(|_| format!("`{word}` is no number of {what}"))
}

/// `name=value` words; a value is written as in TOML, or is a text.
fn config(words: &[&str]) -> Result<Config, String> {
    let mut config = Config::new();
    for word in words {
        let (name, value) = word
            .split_once('=')
            .ok_or_else(|| format!("`{word}` is no hyperparameter: write name=value"))?;
        let text = format!("value = {value}");
        let document = Document::new("the command line", &text);
        let parsed = document.parse().ok().and_then(|entries| {
            Table::root(document, entries.get_ref()).needed::<cerebro_core::Value>("value").ok()
        });
        config.set(name, parsed.unwrap_or_else(|| value.into()));
    }
    Ok(config)
}

/// The `[space]` of a file, which may hold other tables too.
fn read_space(file: &str) -> Result<Space, String> {
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("cannot read {file}: {error}"))?;
    let document = Document::new(file, &text);
    let entries = document.parse().map_err(|fault| fault.to_string())?;
    let root = Table::root(document, entries.get_ref());
    let table = root.item_needed("space", "a table of hyperparameters");
    let table = table.and_then(|item| item.table());
    table.and_then(|table| space::read(&table)).map_err(|fault| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Value, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        request(&words)
    }

    #[test]
    fn words_make_the_commands_of_an_experiment() {
        for (line, expected) in [
            ("pause 3", "pause trial-3"),
            ("resume trial-3", "resume trial-3"),
            ("stop 0", "stop trial-0"),
            ("pause", "pause all trials"),
            ("resume", "resume all trials"),
            ("extend epochs 9", "extend to 9 epochs"),
            ("extend trials 9", "extend by 9 trials"),
            ("priority 2 -4", "give trial-2 the priority -4"),
            ("clone 1", "clone trial-1 from initial weights"),
            (
                "clone 1 --from best learning_rate=1e-2 hidden=[64,32] optimizer=adamw",
                "clone trial-1 with hidden=[64, 32] learning_rate=0.01 optimizer=adamw from its best weights",
            ),
            ("add nesterov=true batch_size=8", "add a trial with batch_size=8 nesterov=true"),
        ] {
            let command: Command = serde_json::from_value(of(line).unwrap()).unwrap();
            assert_eq!(command.to_string(), expected, "{line}");
        }
    }

    #[test]
    fn the_space_of_a_file_narrows() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("space.toml");
        std::fs::write(&file, "epochs = 3\n[space]\nrate = { uniform = [0.0, 0.5] }\n").unwrap();
        let request = of(&format!("narrow {}", file.display())).unwrap();
        let command: Command = serde_json::from_value(request).unwrap();
        let Command::Narrow { space } = command else { panic!("{command}") };
        assert_eq!(space.parameters()[0].name, "rate");
        std::fs::write(&file, "[space]\nrate = { unifrm = [0.0, 0.5] }\n").unwrap();
        let refused = of(&format!("narrow {}", file.display())).unwrap_err();
        assert!(refused.contains(":2:10: ") && refused.contains("`uniform`?"), "{refused}");
    }

    #[test]
    fn words_that_make_no_command_are_refused() {
        for (line, expected) in [
            ("", "which command"),
            ("pasue 3", "did you mean `pause`"),
            ("pause three", "`three` is no number"),
            ("pause 1 2", "`pause` does not take `1 2`"),
            ("clone 1 --from middle", "`cold`, `latest` or `best`"),
            ("clone 1 rate", "`rate` is no hyperparameter"),
            ("add", "`add` needs words after it"),
            ("priority 1 high", "-10 to 10"),
            ("priority 1 11", "`11` is no priority"),
        ] {
            let refused = of(line).unwrap_err();
            assert!(refused.contains(expected), "{line}: {refused}");
        }
    }
}
