//! The experiment that tests run.

/// What tests change of it stands once.
const FILE: &str = r#"
name = "digits"
seed = 7
epochs = 2
objective = { maximize = "accuracy" }
policy = "seeded"

[data]
url = "data"

[data.prepare]
source = { parquet = "DIGITS" }
partitions = 2
validation = 0.2
stratify = "label"

[data.prepare.tensors]
pixels = { columns = ["pixels"], normalize = "min_max", scope = "tensor" }
label = { columns = ["label"], classes = 10 }

[model]
network = { builder = "mlp", inputs = 64, hidden = "hidden", outputs = 10 }
loss = "cross_entropy"
metrics = ["accuracy"]
input = "pixels"
target = "label"

[space]
hidden = { choice = [[16], [32]] }
batch_size = { choice = [16, 32] }
optimizer = { choice = ["sgd", "adamw"] }
learning_rate = { loguniform = [1e-3, 1e-1] }
momentum = { uniform = [0.0, 0.9], when = { optimizer = "sgd" } }

[search]
kind = "random"
trials = 4

[backend]
kind = "local"
workers = 2

[store]
url = "store"

[output]
folder = "out"
"#;

/// A file that is in order: a small experiment on handwritten digits.
pub(crate) fn file() -> String {
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/digits.parquet");
    FILE.replace("DIGITS", digits)
}
