//! The calls of MLflow's REST API that are needed here.
//!
//! Source: "REST API", version 2.0, of MLflow's documentation.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The pauses before a call is tried again that did not come through.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// An answer of more bytes than this is not read to its end.
const LONGEST_ANSWER: u64 = 16 << 20;
/// The runs that are asked for at once.
const PAGE: u32 = 1000;

/// Why an MLflow server could not be told.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MlFlowError {
    /// No URL of a server.
    #[error(
        "`{url}` is no URL of an MLflow server: write http://HOST:PORT. For a server behind https, \
         run a proxy on this machine"
    )]
    Address {
        /// What was given.
        url: String,
    },
    /// The server did not answer.
    #[error("cannot {what} at the MLflow server {url}: {source}; is it running?")]
    Unreachable {
        /// What was attempted.
        what: &'static str,
        /// The server.
        url: String,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
    /// The server answered that it will not.
    #[error("the MLflow server {url} refused to {what} (status {status}): {reason}")]
    Refused {
        /// What was attempted.
        what: &'static str,
        /// The server.
        url: String,
        /// HTTP's status.
        status: u16,
        /// What it said.
        reason: String,
    },
    /// The server answered something else than MLflow does.
    #[error("{url} is no MLflow server: asked to {what}, it answered {answer}")]
    NotMlFlow {
        /// What was attempted.
        what: &'static str,
        /// The server.
        url: String,
        /// The beginning of what it answered.
        answer: String,
    },
}

/// What a run has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunStatus {
    Finished,
    Failed,
    Killed,
}

/// A run that is on the server already.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) ended: bool,
    pub(super) params: BTreeMap<String, String>,
    pub(super) tags: BTreeMap<String, String>,
    /// The last step of any metric.
    pub(super) step: u32,
}

/// What is logged of a run at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    /// Key, value, milliseconds since 1970, step.
    pub(super) metrics: Vec<(String, f64, u64, u32)>,
    pub(super) params: Vec<(String, String)>,
    pub(super) tags: Vec<(String, String)>,
}

/// What a call carries.
#[derive(Clone, Copy, Debug)]
enum Asked<'a> {
    Body(&'a Value),
    Query(&'a [(&'static str, &'a str)]),
}

/// A connection to a tracking server.
#[derive(Debug)]
pub(super) struct Api {
    agent: ureq::Agent,
    url: String,
    token: Option<String>,
}

impl Api {
    pub(super) fn new(url: &str, token: Option<String>) -> Result<Self, MlFlowError> {
        if url.strip_prefix("http://").is_none_or(str::is_empty) {
            return Err(MlFlowError::Address { url: url.to_owned() });
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build();
        Ok(Self { agent: config.into(), url: url.trim_end_matches('/').to_owned(), token })
    }

    /// The id of the experiment `name`, which is made if it is absent.
    pub(super) fn experiment(&self, name: &str) -> Result<String, MlFlowError> {
        let what = "make an experiment";
        let answer = self.call(what, "experiments/create", &json!({ "name": name }));
        match answer {
            Ok(answer) => self.id(what, &answer, "/experiment_id"),
            // There is one of the name, or there was: it may be deleted.
            Err(MlFlowError::Refused { status: 400, reason, .. })
                if reason.contains("RESOURCE_ALREADY_EXISTS") =>
            {
                self.existing(name)
            }
            Err(error) => Err(error),
        }
    }

    fn existing(&self, name: &str) -> Result<String, MlFlowError> {
        let what = "find an experiment";
        let asked = Asked::Query(&[("experiment_name", name)]);
        let found = self.send(what, "experiments/get-by-name", asked)?;
        if found.pointer("/experiment/lifecycle_stage").is_some_and(|stage| stage == "deleted") {
            return Err(MlFlowError::Refused {
                what,
                url: self.url.clone(),
                status: 400,
                reason: format!("the experiment `{name}` was deleted; take another name"),
            });
        }
        self.id(what, &found, "/experiment/experiment_id")
    }

    /// The id of a new run.
    pub(super) fn start_run(
        &self,
        experiment: &str,
        name: &str,
        start: u64,
        tags: &[(String, String)],
    ) -> Result<String, MlFlowError> {
        let what = "start a run";
        let asked = json!({
            "experiment_id": experiment,
            "run_name": name,
            "start_time": start,
            "tags": pairs(tags),
        });
        let answer = self.call(what, "runs/create", &asked)?;
        self.id(what, &answer, "/run/info/run_id")
    }

    /// The runs of an experiment that have the tag `key` with this value, which is a word.
    pub(super) fn runs(
        &self,
        experiment: &str,
        key: &str,
        value: &str,
    ) -> Result<Vec<Found>, MlFlowError> {
        let what = "find runs";
        let mut asked = json!({
            "experiment_ids": [experiment],
            "filter": format!("tags.`{key}` = '{value}'"),
            "max_results": PAGE,
        });
        let mut runs = Vec::new();
        loop {
            let answer = self.call(what, "runs/search", &asked)?;
            for run in answer["runs"].as_array().into_iter().flatten() {
                runs.push(found(run, self.id(what, run, "/info/run_id")?));
            }
            match answer["next_page_token"].as_str() {
                None | Some("") => return Ok(runs),
                Some(token) => asked["page_token"] = token.into(),
            }
        }
    }

    /// Logs what there is of a run.
    pub(super) fn log(&self, run: &str, batch: &Batch) -> Result<(), MlFlowError> {
        let metric = |(key, value, at, step): &(String, f64, u64, u32)| json!({ "key": key, "value": number(*value), "timestamp": at, "step": step });
        let asked = json!({
            "run_id": run,
            "metrics": batch.metrics.iter().map(metric).collect::<Vec<_>>(),
            "params": pairs(&batch.params),
            "tags": pairs(&batch.tags),
        });
        self.call("log a run", "runs/log-batch", &asked).map(drop)
    }

    /// Has a run go on that had ended.
    pub(super) fn reopen_run(&self, run: &str) -> Result<(), MlFlowError> {
        let asked = json!({ "run_id": run, "status": "RUNNING" });
        self.call("go on with a run", "runs/update", &asked).map(drop)
    }

    /// Ends a run.
    pub(super) fn end_run(
        &self,
        run: &str,
        status: RunStatus,
        end: u64,
    ) -> Result<(), MlFlowError> {
        let status = match status {
            RunStatus::Finished => "FINISHED",
            RunStatus::Failed => "FAILED",
            RunStatus::Killed => "KILLED",
        };
        let asked = json!({ "run_id": run, "status": status, "end_time": end });
        self.call("end a run", "runs/update", &asked).map(drop)
    }

    fn id(&self, what: &'static str, answer: &Value, at: &str) -> Result<String, MlFlowError> {
        let found = answer.pointer(at).and_then(Value::as_str);
        found.map(str::to_owned).ok_or_else(|| self.not_mlflow(what, &answer.to_string()))
    }

    fn not_mlflow(&self, what: &'static str, answer: &str) -> MlFlowError {
        let answer = answer.chars().take(200).collect();
        MlFlowError::NotMlFlow { what, url: self.url.clone(), answer }
    }

    fn call(&self, what: &'static str, path: &str, asked: &Value) -> Result<Value, MlFlowError> {
        self.send(what, path, Asked::Body(asked))
    }

    /// One call, tried again if the server could not be reached.
    fn send(&self, what: &'static str, path: &str, asked: Asked<'_>) -> Result<Value, MlFlowError> {
        let mut pauses = PAUSES.into_iter();
        loop {
            let (status, text) = match self.try_once(path, asked) {
                Ok(answer) => answer,
                Err(error) => {
                    if let Some(pause) = pauses.next().filter(|_| never_arrived(&error)) {
                        std::thread::sleep(pause);
                        continue;
                    }
                    let (url, source) = (self.url.clone(), Box::new(error));
                    return Err(MlFlowError::Unreachable { what, url, source });
                }
            };
            if (200..300).contains(&status) {
                return serde_json::from_str(&text).map_err(|_| self.not_mlflow(what, &text));
            }
            let reason = text.chars().take(500).collect();
            return Err(MlFlowError::Refused { what, url: self.url.clone(), status, reason });
        }
    }

    fn try_once(&self, path: &str, asked: Asked<'_>) -> Result<(u16, String), ureq::Error> {
        let url = format!("{}/api/2.0/mlflow/{path}", self.url);
        let token = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut answer = match asked {
            Asked::Body(body) => {
                let mut request = self.agent.post(url).header("content-type", "application/json");
                if let Some(token) = token {
                    request = request.header("authorization", token);
                }
                request.send(body.to_string())?
            }
            Asked::Query(pairs) => {
                let mut request = self.agent.get(url).query_pairs(pairs.iter().copied());
                if let Some(token) = token {
                    request = request.header("authorization", token);
                }
                request.call()?
            }
        };
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(LONGEST_ANSWER).lossy_utf8(true);
        Ok((status, text.read_to_string()?))
    }
}

/// Whether the server cannot have seen the call, so that it does no harm to repeat it.
fn never_arrived(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => true,
        ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        _ => false,
    }
}

/// The run that the server describes, as far as it does.
fn found(run: &Value, id: String) -> Found {
    let listed = |of: &'static str| run["data"][of].as_array().into_iter().flatten();
    let texts = |of| {
        let text = |pair: &Value| {
            Some((pair["key"].as_str()?.to_owned(), pair["value"].as_str()?.to_owned()))
        };
        listed(of).filter_map(text).collect()
    };
    Found {
        id,
        ended: run["info"]["status"] != "RUNNING",
        params: texts("params"),
        tags: texts("tags"),
        step: listed("metrics").filter_map(step).max().unwrap_or(0),
    }
}

/// The step of a metric, which protobuf may write as a text.
fn step(metric: &Value) -> Option<u32> {
    let step = &metric["step"];
    step.as_u64().or_else(|| step.as_str()?.parse().ok())?.try_into().ok()
}

fn pairs(pairs: &[(String, String)]) -> Value {
    pairs.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
}

/// A number in JSON, which lacks some: protobuf writes those as texts.
fn number(value: f64) -> Value {
    if value.is_nan() {
        "NaN".into()
    } else if value == f64::INFINITY {
        "Infinity".into()
    } else if value == f64::NEG_INFINITY {
        "-Infinity".into()
    } else {
        value.into()
    }
}
