//! Experiments from TOML files: a real run, and every way in which a file can be wrong.

mod support;

use std::path::{Path, PathBuf};

use cerebro_core::observe::{Event, read_events};
use cerebro_tune::arguments::Options;
use cerebro_tune::{Plan, run};
use support::file;

/// What is said of the file in which `from` is replaced by `to`, and the place that it names.
fn refused(from: &str, to: &str) -> (String, (usize, usize)) {
    let text = file();
    assert_eq!(text.matches(from).count(), 1, "{from}");
    let folder = tempfile::tempdir().unwrap();
    let fault = Plan::parse("digits.toml", &text.replace(from, to), folder.path()).unwrap_err();
    let written = fault.to_string();
    let place = format!("digits.toml:{}:{}: ", fault.line, fault.column);
    assert!(written.starts_with(&place), "{written}");
    (written, (fault.line, fault.column))
}

/// The line and the column of `part` in the changed file.
fn place(from: &str, to: &str, part: &str) -> (usize, usize) {
    let text = file().replace(from, to);
    let at = text.find(part).unwrap();
    let line_start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    (text[..at].matches('\n').count() + 1, at - line_start + 1)
}

/// Checks that the changed file is refused at `part`, with all of `messages`.
#[track_caller]
fn refuses(from: &str, to: &str, part: &str, messages: &[&str]) {
    let (text, found) = refused(from, to);
    for message in messages {
        assert!(text.contains(message), "no `{message}` in:\n{text}");
    }
    assert_eq!(found, place(from, to, part), "{text}");
}

#[test]
fn an_unknown_key_is_told_with_its_place_and_the_nearest_one() {
    refuses("epochs = 2", "epoch = 2", "epoch = 2", &["unknown key `epoch`", "`epochs`?"]);
    refuses(
        "partitions = 2",
        "partition = 2",
        "partition = 2",
        &["unknown key `partition` in `data.prepare`", "did you mean `partitions`"],
    );
    refuses(
        "classes = 10",
        "clases = 10",
        "clases",
        &["unknown key `clases` in `data.prepare.tensors.label`", "`classes`"],
    );
    refuses("trials = 4", "trails = 4", "trails", &["in `search`", "did you mean `trials`"]);
    refuses("workers = 2", "worker = 2", "worker = 2", &["in `backend`", "`workers`"]);
    refuses("inputs = 64", "imputs = 64", "imputs", &["unknown key `imputs` in `model.network`"]);
    refuses("loguniform", "loguniforn", "loguniforn", &["did you mean `loguniform`"]);
}

#[test]
fn a_value_of_the_wrong_type_is_told_with_the_one_that_is_needed() {
    let whole = "a whole number of at least 0 is needed";
    refuses("epochs = 2", "epochs = \"two\"", "\"two\"", &["`epochs` is a text", whole]);
    refuses("epochs = 2", "epochs = 2.5", "2.5", &["a number with a fraction", whole]);
    refuses("epochs = 2", "epochs = -2", "-2", &["`epochs` is -2", "from 0 to 4294967295"]);
    refuses("trials = 4", "trials = [4]", "[4]", &["`search.trials` is a list"]);
    refuses("[1e-3, 1e-1]", "[1e-3]", "[1e-3]", &["1 numbers", "two are needed"]);
    refuses("[1e-3, 1e-1]", "[1e-3, \"a\"]", "\"a\"", &["learning_rate.loguniform[1]"]);
    refuses("input = \"pixels\"", "input = 3", "3\ntarget", &["`model.input` is a whole number"]);
    refuses("inputs = 64", "inputs = 6.4", "6.4", &["a whole number of at least 1"]);
    refuses("hidden = \"hidden\"", "hidden = 8", "8, outputs", &["a list of sizes"]);
    refuses("name = \"digits\"", "name = 2026-01-01", "2026", &["`name` is a date", "a text"]);
}

#[test]
fn numbers_and_times_that_leave_nothing_to_do_are_refused() {
    let none = |key: &str, place: &str| {
        let line = format!("epochs = 2\n{key} = 0");
        refuses("epochs = 2", &line, place, &[&format!("`{key}` is 0, but at least 1 is needed")]);
    };
    none("concurrent_trials", "0\nobjective");
    let export = &["no model is left to export", "`export = false`"];
    refuses("epochs = 2", "epochs = 2\nkeep_models = 0", "0\nobjective", export);
    let none = &["`backend.workers` is 0, but at least 1 is needed"];
    refuses("workers = 2", "workers = 0", "0\n\n[store]", none);
    refuses(
        "url = \"store\"",
        "url = \"store\"\nlease_seconds = -3",
        "-3\n",
        &["-3 seconds are no time to wait"],
    );
}

#[test]
fn a_backend_that_cannot_be_is_told_before_anything_runs() {
    let local = "kind = \"local\"\nworkers = 2";
    let tcp = |line: &str| format!("kind = \"tcp\"\n{line}");
    refuses(local, &tcp("listen = \"here\""), "\"here\"", &["`here` is no address", "HOST:PORT"]);
    refuses(
        local,
        &tcp("certificates = \"absent\""),
        "\"absent\"",
        &["absent/key.pem", "`cerebro-worker certificates`"],
    );
    #[cfg(not(feature = "cuda"))]
    refuses(
        local,
        "kind = \"local\"\ndevices = [\"cpu\", \"cuda:0\"]",
        "\"cuda:0\"",
        &["--features cerebro-tune/cuda"],
    );
}

#[test]
fn a_url_of_a_store_that_the_program_does_not_know_is_told_at_the_key_that_has_it() {
    let store = "url = \"store\"";
    let url = |url: &str| store.replace("store", url);
    refuses(store, &url("s4://bucket/run"), "\"s4:", &["`s4` is none of file, s3"]);
    #[cfg(not(feature = "aws"))]
    {
        let built = ["needs the feature `aws`", "build it with `--features cerebro-tune/aws`"];
        refuses(store, &url("s3://bucket/run"), "\"s3:", &built);
        refuses("url = \"data\"", "url = \"s3://bucket/data\"", "\"s3:", &built);
        let (text, _) = refused("{ parquet = \"", "{ parquet = \"s3://bucket");
        assert!(text.contains(built[0]), "{text}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_place() {
    refuses("epochs = 2", "epochs = ", "\nobjective", &[]);
    let (text, (line, _)) = refused("[store]", "[store");
    assert_eq!(line, place("[store]", "[store", "[store").0, "{text}");
    refuses("trials = 4", "trials = 4\ntrials = 5", "trials = 5", &["duplicate key"]);
}

#[test]
fn what_is_missing_is_told_with_what_it_would_be() {
    refuses("trials = 4", "", "[search]", &["`search` has no `trials`"]);
    refuses("loss = \"cross_entropy\"", "", "[model]", &["`model` has no `loss`"]);
    let (text, _) = refused("epochs = 2", "");
    assert!(text.contains("the file has no `epochs`"), "{text}");
    let (text, _) = refused("objective = { maximize = \"accuracy\" }", "");
    assert!(text.contains("no `objective`") && text.contains("{ minimize"), "{text}");
    refuses(", outputs = 10", "", "{ builder", &["missing field `outputs`"]);
    refuses("builder = \"mlp\", ", "", "{ inputs", &["no `builder`"]);
}

#[test]
fn names_of_searches_policies_losses_and_builders_are_checked_against_those_that_there_are() {
    refuses("kind = \"random\"", "kind = \"randm\"", "\"randm\"", &["search", "`random`?"]);
    refuses("\"seeded\"", "\"sedeed\"", "\"sedeed\"", &["policy", "did you mean `seeded`"]);
    refuses("\"cross_entropy\"", "\"crossentropy\"", "\"crossentropy\"", &["`cross_entropy`?"]);
    refuses("\"mlp\"", "\"mpl\"", "\"mpl\"", &["unknown network `mpl`", "`mlp`"]);
    refuses("kind = \"local\"", "kind = \"locl\"", "\"locl\"", &["did you mean `local`"]);
    refuses("\"min_max\"", "\"minmax\"", "\"minmax\"", &["did you mean `min_max`"]);
    refuses(
        "\"cross_entropy\"",
        "{ kind = \"cross_entropy\", label_smothing = 0.1 }",
        "label_smothing",
        &["unknown key `label_smothing`", "did you mean `label_smoothing`"],
    );
    refuses(
        "\"cross_entropy\"",
        "{ kind = \"cross_entropy\", label_smoothing = \"some\" }",
        "\"some\"",
        &["`model.loss.label_smoothing` is a text, but a number is needed"],
    );
    let random = "kind = \"random\"\ntrials = 4";
    refuses(
        random,
        "kind = \"population\"\nsize = 4\nexplored = [\"learning_rat\"]",
        "[\"learning_rat\"]",
        &["no hyperparameter `learning_rat`; did you mean `learning_rate`"],
    );
    refuses(random, "kind = \"grid\"", "\"grid\"", &["`learning_rate` is", "needs `points = 5`"]);
}

#[test]
fn an_unknown_metric_and_one_that_the_model_does_not_report_are_told() {
    refuses("[\"accuracy\"]", "[\"acuracy\"]", "\"acuracy\"", &["unknown metric", "`accuracy`?"]);
    refuses(
        "maximize = \"accuracy\"",
        "maximize = \"perplexity\"",
        "\"perplexity\"",
        &["the model reports no metric `perplexity`", "`loss`, `accuracy`", "`model.metrics`"],
    );
    let both = "maximize = \"accuracy\", minimize = \"loss\"";
    refuses("maximize = \"accuracy\"", both, "{ maximize", &["one direction"]);
}

#[test]
fn retention_is_read_and_what_is_wrong_with_it_told_at_its_key() {
    let store = "url = \"store\"";
    let with = |retention: &str| format!("{store}\nretention = {retention}");
    let most = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan::parse("digits.toml", text, folder.path()).unwrap();
        let trials = 4;
        plan.experiment.build().unwrap().most_states().unwrap() / trials
    };
    // The three epochs of the trial, and what is kept of each trial for a moment.
    let text = file().replace("epochs = 2", "epochs = 3");
    let usual = most(&text);
    assert_eq!(most(&text.replace(store, &with("{ last = 2, best = 1 }"))), usual + 1);
    assert_eq!(most(&text.replace(store, &with("{ every = 3 }"))), usual + 1);
    refuses(
        store,
        &with("{ lest = 2 }"),
        "lest",
        &["unknown key `lest` in `store.retention`", "did you mean `best`? Known are `last`"],
    );
    refuses(
        store,
        &with("{ every = 0 }"),
        "0 }\n\n[output]",
        &["`store.retention.every` is 0", "at least 1"],
    );
    refuses(
        store,
        &with("3"),
        "3\n\n[output]",
        &["`store.retention` is a whole number", "a table"],
    );
}

#[test]
fn a_space_that_cannot_be_is_told_at_the_hyperparameter() {
    refuses("[1e-3, 1e-1]", "[1e-1, 1e-3]", "{ loguniform", &["learning_rate"]);
    refuses(
        "when = { optimizer = \"sgd\" }",
        "when = { optimiser = \"sgd\" }",
        "{ uniform",
        &["optimiser", "optimizer"],
    );
    refuses(
        "when = { optimizer = \"sgd\" }",
        "when = { optimizer = \"sdg\" }",
        "{ uniform",
        &["sdg"],
    );
    refuses("{ choice = [16, 32] }", "16", "16\noptimizer", &["`space.batch_size`", "{ value"]);
    refuses(
        "{ choice = [16, 32] }",
        "{ choice = [16, 32], int = [1, 2] }",
        "{ choice = [16",
        &["choice and int", "exactly one"],
    );
}

#[test]
fn a_space_that_does_not_fit_the_model_is_told_before_anything_runs() {
    refuses(
        "learning_rate = {",
        "learnin_rate = {",
        "{ loguniform",
        &["unknown hyperparameter `learnin_rate`; did you mean `learning_rate`"],
    );
    refuses(
        "momentum = { uniform = [0.0, 0.9], when = { optimizer = \"sgd\" } }",
        "momentum = { uniform = [0.0, 0.9] }",
        "{ uniform",
        &["the model refuses", "unknown hyperparameter `momentum`"],
    );
    refuses(
        "choice = [\"sgd\", \"adamw\"]",
        "choice = [\"sgd\", \"adamww\"]",
        "{ choice = [\"sgd\"",
        &["`optimizer` = adamww"],
    );
}

#[test]
fn a_config_of_a_list_that_is_outside_of_the_space_is_told() {
    let config = |rate: &str| {
        format!(
            "kind = \"list\"\nconfigs = [{{ hidden = [16], batch_size = 16, \
             optimizer = \"adamw\", learning_rate = {rate} }}]"
        )
    };
    let list = "kind = \"random\"\ntrials = 4";
    let text = file().replace(list, &config("0.01"));
    let folder = tempfile::tempdir().unwrap();
    Plan::parse("digits.toml", &text, folder.path()).unwrap();
    let messages = ["not in the space", "learning_rate"];
    refuses(list, &config("7.0"), "{ hidden = [16]", &messages);
}

#[test]
fn a_tensor_that_the_data_set_does_not_have_is_told_with_those_that_it_has() {
    let expected = ["no tensor `pixel`", "did you mean `pixels`"];
    refuses("input = \"pixels\"", "input = \"pixel\"", "\"pixel\"", &expected);
    refuses("target = \"label\"", "", "[model]", &["no tensor `target`", "`label`"]);
}

#[test]
fn a_network_that_does_not_fit_the_data_is_told_before_anything_runs() {
    refuses(
        "inputs = 64",
        "inputs = 63",
        "{ builder",
        &["does not fit the data", "rows of shape [63]", "`pixels` has rows of shape [64]"],
    );
    refuses(
        "outputs = 10",
        "outputs = 9",
        "{ builder",
        &["does not fit the data", "`label` has labels of 10 classes", "tells 9 apart"],
    );
    let target = ["does not fit the data", "`pixels` has rows of shape [64]"];
    refuses("target = \"label\"", "target = \"pixels\"", "{ builder", &target);
}

#[test]
fn data_and_files_that_are_not_there_are_told_at_the_key_that_names_them() {
    let (text, _) = refused("digits.parquet", "digit.parquet");
    assert!(text.contains("cannot prepare the data") && text.contains("digit.parquet"), "{text}");
    refuses(
        "{ builder = \"mlp\", inputs = 64, hidden = \"hidden\", outputs = 10 }",
        "{ onnx = \"absent.onnx\" }",
        "\"absent.onnx\"",
        &["absent.onnx"],
    );
    refuses("columns = [\"label\"]", "columns = [\"lable\"]", "[data.prepare]", &["lable"]);
}

#[test]
fn pretrained_weights_have_to_fit_the_networks_of_the_space() {
    refuses(
        "target = \"label\"",
        "target = \"label\"\npretrained = { file = \"absent.safetensors\" }",
        "\"absent.safetensors\"",
        &["cannot read the weights", "absent.safetensors"],
    );
    let folder = tempfile::tempdir().unwrap();
    let model = cerebro_models::nn::mlp(64, &[16], 10).model;
    model.to_file(folder.path().join("weights.onnx")).unwrap();
    let of = |pretrained: &str| {
        let text = file().replace("target = \"label\"", pretrained);
        Plan::parse("digits.toml", &text, folder.path()).map(drop)
    };
    // The space has networks of 32 hidden units too.
    let refusal = of("target = \"label\"\npretrained = { file = \"weights.onnx\" }").unwrap_err();
    let text = refusal.to_string();
    assert!(text.contains("`hidden1.weight` has the shape [16, 64]"), "{text}");
    let some = "target = \"label\"\npretrained = { file = \"weights.onnx\", \
                except = [\"hidden*\", \"last.weight\"] }";
    of(some).unwrap();
}

#[test]
fn rungs_above_the_epochs_of_a_trial_are_refused() {
    refuses(
        "kind = \"random\"",
        "kind = \"asha\"\nmax_epochs = 9",
        "9\ntrials",
        &["9 epochs", "has 2"],
    );
    refuses(
        "kind = \"random\"\ntrials = 4",
        "kind = \"tpe\"\ntrials = 4\nstartup = 1",
        "1\n\n[backend]",
        &["`startup` is 1", "at least 2"],
    );
}

#[test]
fn every_kind_of_search_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    for search in [
        "kind = \"quasi_random\"\ntrials = 4",
        "kind = \"tpe\"\ntrials = 4\nmultivariate = false\nstartup = 2\nrandom_share = 0.5",
        "kind = \"asha\"\ntrials = 4\nreduction = 2",
        "kind = \"asha\"\nover = { kind = \"tpe\", trials = 4 }",
        "kind = \"successive_halving\"\ntrials = 4\nreduction = 2",
        "kind = \"hyperband\"\nreduction = 2\nrounds = 2\nsizes = \"table\"",
        "kind = \"bohb\"\nreduction = 2",
        "kind = \"median_stopping\"\nover = { kind = \"quasi_random\", trials = 4 }",
        "kind = \"population\"\nsize = 4\nexplored = [\"learning_rate\"]",
        "kind = \"random\"\ntrials = 4\n[stop]\ntarget = 0.9\nepochs = 20\nwall_seconds = 60\n\
         no_improvement = { epochs = 5 }",
    ] {
        let text = file().replace("kind = \"random\"\ntrials = 4", search);
        Plan::parse("digits.toml", &text, folder.path()).unwrap();
    }
    let grid = file()
        .replace("kind = \"random\"\ntrials = 4", "kind = \"grid\"")
        .replace("[1e-3, 1e-1] }", "[1e-3, 1e-1], points = 2 }")
        .replace("when = {", "points = 3, when = {");
    Plan::parse("digits.toml", &grid, folder.path()).unwrap();
}

#[cfg(not(feature = "cma-es"))]
#[test]
fn a_search_that_the_program_was_built_without_names_the_feature() {
    let search = "kind = \"cma_es\"\ntrials = 40";
    let named = ["--features cerebro-tune/cma-es", "`tpe`"];
    refuses("kind = \"random\"\ntrials = 4", search, "\"cma_es\"", &named);
}

#[cfg(feature = "cma-es")]
#[test]
fn the_search_cma_es_is_refused_a_space_with_choices_and_takes_others() {
    let search = "kind = \"cma_es\"\ntrials = 40\npopulation = 8\ncompared_after = 1";
    refuses(
        "kind = \"random\"\ntrials = 4",
        search,
        "[search]",
        &["`hidden` is a choice", "the search `tpe` takes every space"],
    );
    let numbers = "[space]\nlearning_rate = { loguniform = [1e-3, 1e-1] }\n\
                   momentum = { uniform = [0.0, 0.9] }\n\n[search]";
    let text = file();
    let (start, end) = (text.find("[space]").unwrap(), text.find("[search]").unwrap());
    let text = text
        .replace(&text[start..end], &numbers.replace("[search]", ""))
        .replace("hidden = \"hidden\"", "hidden = [16]")
        .replace("[space]", "[model.defaults]\noptimizer = \"sgd\"\nbatch_size = 16\n\n[space]")
        .replace("kind = \"random\"\ntrials = 4", search);
    let folder = tempfile::tempdir().unwrap();
    Plan::parse("digits.toml", &text, folder.path()).unwrap();
}

#[test]
fn the_file_that_is_shipped_is_in_order() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits.toml");
    let folder = tempfile::tempdir().unwrap();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/digits.parquet");
    let text = std::fs::read_to_string(shipped).unwrap();
    let text = text.replace("\"data/digits.parquet\"", &format!("{data:?}"));
    let text = text.replace("\"../runs", "\"runs");
    Plan::parse("digits.toml", &text, folder.path()).unwrap();
}

fn options(file: PathBuf) -> Options {
    Options { file, ..Options::default() }
}

/// The values of all completed epochs, in the order of trials and epochs.
fn values(events: &Path) -> Vec<(u64, u32, f64)> {
    let events = read_events(events).unwrap().into_iter();
    let mut values: Vec<_> = events
        .filter_map(|timed| match timed.event {
            Event::EpochCompleted { trial, epoch, value, .. } => Some((trial.0, epoch, value)),
            _ => None,
        })
        .collect();
    values.sort_by_key(|(trial, epoch, _)| (*trial, *epoch));
    values
}

#[test]
fn a_file_runs_to_a_model_and_the_same_file_to_the_same_results() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut results = Vec::new();
    for (folder, workers) in folders.iter().zip([None, Some(1)]) {
        let file = folder.path().join("digits.toml");
        std::fs::write(&file, support::file()).unwrap();
        run::run(&Options { workers, ..options(file) }, |_| ()).unwrap();
        let out = folder.path().join("out");
        for name in ["best.onnx", "best.safetensors", "report.html", "events.jsonl", "logs"] {
            assert!(out.join(name).exists(), "{name}");
        }
        results.push(values(&out.join("events.jsonl")));
    }
    assert_eq!(results[0].len(), 8, "4 trials of 2 epochs");
    assert!(results[0].iter().all(|(_, _, value)| (0.0..=1.0).contains(value)));
    assert_eq!(results[0], results[1], "with 2 workers and with 1");
}

#[test]
fn a_finished_experiment_is_resumed_without_training_and_not_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("digits.toml");
    std::fs::write(&file, support::file()).unwrap();
    run::run(&options(file.clone()), |_| ()).unwrap();
    let again = run::run(&options(file.clone()), |_| ()).unwrap_err().to_string();
    assert!(again.contains("store"), "{again}");
    assert_eq!(values(&folder.path().join("out/events.jsonl")).len(), 8, "what was written stays");

    let resumed = Options { resume: true, ..options(file.clone()) };
    run::run(&resumed, |_| ()).unwrap();
    // Events of all runs are in the file, one run after the other.
    let trained = || values(&folder.path().join("out/events.jsonl"));
    assert_eq!(trained().len(), 8, "nothing trains again");

    let asked = |words: &str| vec![words.split(' ').map(str::to_owned).collect()];
    let extended = Options { asked: asked("extend trials 1"), ..resumed.clone() };
    run::run(&extended, |_| ()).unwrap();
    assert_eq!(trained().len(), 10);
    assert_eq!(trained()[8..].iter().map(|(trial, ..)| *trial).collect::<Vec<_>>(), [4, 4]);
    let extended = Options { asked: asked("extend epochs 3"), ..resumed.clone() };
    run::run(&extended, |_| ()).unwrap();
    let all: Vec<_> = (0..5).flat_map(|trial| (1..=3).map(move |epoch| (trial, epoch))).collect();
    assert_eq!(trained().iter().map(|(trial, epoch, _)| (*trial, *epoch)).collect::<Vec<_>>(), all);
    let report = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(report.contains("\"unseen_epochs\":0"), "the schedule has all runs");
    let refused = Options { asked: asked("extend epochs 2"), ..resumed.clone() };
    let refused = run::run(&refused, |_| ()).unwrap_err().to_string();
    assert!(refused.starts_with("cannot extend to 2 epochs: "), "{refused}");

    let text = support::file().replace("trials = 4", "trials = 5");
    std::fs::write(&file, text).unwrap();
    let changed = run::run(&resumed, |_| ()).unwrap_err().to_string();
    assert!(changed.contains("the search with its space"), "{changed}");
    assert!(changed.contains("--extend-trials"), "{changed}");

    let text = support::file().replace("validation = 0.2", "validation = 0.3");
    std::fs::write(&file, text).unwrap();
    let changed = run::run(&resumed, |_| ()).unwrap_err().to_string();
    assert!(changed.contains("partition-0 is not what it was"), "{changed}");

    let text = support::file().replace("[store]\nurl = \"store\"\n", "");
    std::fs::write(&file, text).unwrap();
    let nothing = run::run(&resumed, |_| ()).unwrap_err().to_string();
    assert!(nothing.contains("nothing to resume"), "{nothing}");
}
