//! [`check_case`]: trains as the reference did and compares.

use std::collections::BTreeMap;

use cerebro_models::onnx::Model;
use cerebro_models::training::{
    Blueprint, HYPERPARAMETERS, Initial, InputShapes, LOSS, SEED, Selection, TARGET, TrainingSpec,
    gradient_name,
};
use serde::Serialize;

use super::Error;
use super::case::{Case, File, Run};
use super::session::{Data, Graph};

/// The tolerance on norms of final parameters and statistics.
const NORM_TOLERANCE: f64 = 1e-3;
/// The tolerance on norms of gradients, and what is added to each for those that are truly zero,
/// as a share of the norm of them all.
const GRADIENT_TOLERANCE: (f64, f64) = (1e-4, 1e-6);
/// The tolerance on the loss of the untrained network.
const FORWARD_TOLERANCE: f64 = 1e-4;

/// What came out for one (case, file, optimizer).
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The case.
    pub case: String,
    /// The export.
    pub file: String,
    /// The optimizer.
    pub optimizer: String,
    /// Whether every quantity is within its tolerance.
    pub pass: bool,
    /// The largest relative error of each quantity.
    #[serde(flatten)]
    pub checks: BTreeMap<&'static str, Check>,
    /// Why it could not be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The largest relative error of a quantity, and where it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Check {
    /// The largest relative error.
    pub error: f64,
    /// The tolerance that it was compared with.
    pub tolerance: f64,
    /// Where it is.
    pub at: String,
}

impl Check {
    fn new(tolerance: f64) -> Self {
        Self { error: 0.0, tolerance, at: String::new() }
    }

    /// Compares; a difference up to `slack` is none.
    fn compare(&mut self, at: &dyn ToString, found: f64, expected: f64, slack: f64) {
        let difference = (found - expected).abs() - slack;
        let error = if difference <= 0.0 { 0.0 } else { difference / expected.abs() };
        // A NaN is the largest error of all.
        if error.is_nan() || error > self.error {
            (self.error, self.at) = (error, at.to_string());
        }
    }

    fn passes(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Trains every export of `case` with every optimizer.
pub fn check_case(case: &Case) -> Vec<Report> {
    let mut reports = Vec::new();
    for file in case.files() {
        for run in &case.runs {
            let (checks, error) = match check_run(case, &file, run) {
                Ok(checks) => (checks, None),
                Err(error) => (BTreeMap::new(), Some(error.to_string())),
            };
            reports.push(Report {
                case: case.name.clone(),
                file: file.name.clone(),
                optimizer: run.optimizer.clone(),
                pass: error.is_none() && checks.values().all(Check::passes),
                checks,
                error,
            });
        }
    }
    reports
}

fn check_run(case: &Case, file: &File, run: &Run) -> Result<BTreeMap<&'static str, Check>, Error> {
    let optimizer = run.optimizer()?;
    let mut spec = TrainingSpec::new(case.loss()?, optimizer.kind());
    spec.output = Some(case.output.clone());
    let model = Model::from_file(case.folder.join(&file.name))?;
    let own_name = |name| case.name_in(file, &model, name);
    spec.parameters =
        Selection::Named(case.trainable.iter().map(|name| own_name(name).to_owned()).collect());
    let blueprint = Blueprint::new(model.clone(), spec)?;

    let names: Vec<&str> =
        case.inputs.iter().map(String::as_str).chain(std::iter::once("y")).collect();
    let mut batches = case.data(&names)?;
    let first = batches.first().ok_or("there is no batch")?;
    let shapes = shapes(first, &case.inputs);
    let interface = blueprint.interface(&shapes)?;
    for (step, batch) in batches.iter_mut().enumerate() {
        if let Some(target) = &interface.target {
            let data = batch["y"].reshaped(&target.dims);
            batch.insert(TARGET.to_owned(), data);
        }
        batch.insert(SEED.to_owned(), Data::I64(vec![1], vec![step as i64]));
    }

    let mut variables = initial_values(&blueprint)?;
    let mut evaluation = Graph::new(&blueprint.evaluation(&shapes)?)?;
    let mut checks = BTreeMap::new();

    let mut check = Check::new(FORWARD_TOLERANCE);
    let before = evaluation.run(&[&batches[0], &variables])?;
    check.compare(&"batch 0", scalar(&before[LOSS]), case.eval_loss_before, 0.0);
    checks.insert("eval_loss_before", check);

    let gradients = Graph::new(&blueprint.gradients(&shapes)?)?.run(&[&batches[0], &variables])?;
    let (tolerance, slack) = GRADIENT_TOLERANCE;
    let all = case.grad_l2_step0.values().map(|norm| norm * norm).sum::<f64>().sqrt();
    let mut check = Check::new(tolerance);
    for (name, expected) in &case.grad_l2_step0 {
        let found = gradients.get(&gradient_name(own_name(name)));
        let found = found.ok_or_else(|| format!("there is no gradient of `{name}`"))?;
        check.compare(name, norm(found), *expected, slack * all);
    }
    checks.insert("grad_l2_step0", check);

    let mut step = Graph::new(&blueprint.step(&shapes)?)?;
    let mut check = Check::new(run.suggested_rtol.losses);
    for (index, (batch, expected)) in batches.iter().zip(&run.losses).enumerate() {
        let values = optimizer.hyperparameters(index as u64 + 1, run.lr);
        let packed = Data::F32(vec![values.len()], values);
        let packed = BTreeMap::from([(HYPERPARAMETERS.to_owned(), packed)]);
        let mut outputs = step.run(&[batch, &variables, &packed])?;
        check.compare(&index, scalar(&outputs[LOSS]), *expected, 0.0);
        for variable in blueprint.variables() {
            let new = variable.output.as_ref().and_then(|output| outputs.remove(output));
            if let Some(new) = new {
                variables.insert(variable.input.clone(), Data::F32(variable.dims.clone(), new));
            }
        }
    }
    checks.insert("losses", check);

    let mut check = Check::new(run.suggested_rtol.eval_loss_after);
    let after = evaluation.run(&[&batches[0], &variables])?;
    check.compare(&"batch 0", scalar(&after[LOSS]), run.eval_loss_after, 0.0);
    checks.insert("eval_loss_after", check);

    for (quantity, norms) in
        [("final_param_l2", &run.final_param_l2), ("final_buffer_l2", &run.final_buffer_l2)]
    {
        let mut check = Check::new(NORM_TOLERANCE);
        for (name, expected) in norms.iter().filter(|(name, _)| run.is_reproducible(name)) {
            match variables.get(own_name(name)) {
                Some(Data::F32(_, values)) => check.compare(name, norm(values), *expected, 0.0),
                _ => return Err(format!("`{name}` is not among the variables").into()),
            }
        }
        checks.insert(quantity, check);
    }
    Ok(checks)
}

fn shapes(batch: &BTreeMap<String, Data>, inputs: &[String]) -> InputShapes {
    let mut shapes = InputShapes::rows(0);
    for name in inputs {
        let (Data::F32(dims, _) | Data::I64(dims, _)) = &batch[name];
        if let Some((&rows, row)) = dims.split_first() {
            shapes.rows = rows;
            shapes = shapes.with(name.clone(), row);
        }
    }
    shapes
}

fn initial_values(blueprint: &Blueprint) -> Result<BTreeMap<String, Data>, Error> {
    blueprint
        .variables()
        .iter()
        .map(|variable| {
            let values = match &variable.initial {
                Initial::Fill(value) => vec![*value; variable.elements()],
                Initial::Tensor(tensor) => tensor
                    .f32s()
                    .ok_or_else(|| format!("`{}` is not of 32-bit floats", variable.name))?,
            };
            Ok((variable.input.clone(), Data::F32(variable.dims.clone(), values)))
        })
        .collect()
}

fn scalar(values: &[f32]) -> f64 {
    values.first().map_or(f64::NAN, |value| f64::from(*value))
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_never_passes() {
        for (found, expected, slack) in [(f64::NAN, 1.0, 0.0), (f64::NAN, 0.0, 1e-6)] {
            let mut check = Check::new(1e-3);
            check.compare(&"a", found, expected, slack);
            check.compare(&"b", 1.5, 1.0, 0.0);
            assert!(!check.passes() && check.at == "a", "{check:?}");
        }
        let mut check = Check::new(1e-3);
        check.compare(&"a", 1e-7, 0.0, 1e-6);
        assert!(check.passes());
    }
}
