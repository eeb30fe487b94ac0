//! `[search]` and `[stop]`: which Configs are tried, which trials go on, and when it is over.

use cerebro_core::search::{
    Asha, BracketSizes, Grid, Hyperband, MedianStopping, Population, QuasiRandom, Random, Rungs,
    SearchError, StopRule, StopWhen, SuccessiveHalving, Tpe,
};
use cerebro_core::space::SpaceError;
use cerebro_core::{Config, Search, Seed, Space};

use super::document::{Fault, Table, suggestion};

/// What a search is made for.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The space.
    pub space: &'a Space,
    /// The experiment's seed.
    pub seed: Seed,
    /// The epochs of a trial.
    pub epochs: u32,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Grid,
    List,
    Random,
    QuasiRandom,
    Tpe,
    CmaEs,
    Asha,
    SuccessiveHalving,
    Hyperband,
    Bohb,
    MedianStopping,
    Population,
}

const KINDS: [(&str, Kind); 12] = [
    ("grid", Kind::Grid),
    ("list", Kind::List),
    ("random", Kind::Random),
    ("quasi_random", Kind::QuasiRandom),
    ("tpe", Kind::Tpe),
    ("cma_es", Kind::CmaEs),
    ("asha", Kind::Asha),
    ("successive_halving", Kind::SuccessiveHalving),
    ("hyperband", Kind::Hyperband),
    ("bohb", Kind::Bohb),
    ("median_stopping", Kind::MedianStopping),
    ("population", Kind::Population),
];

const RUNGS: [&str; 3] = ["min_epochs", "max_epochs", "reduction"];

/// Reads a search.
pub fn read(table: &Table<'_>, setting: Setting<'_>) -> Result<Box<dyn Search>, Fault> {
    let kind = table.item_needed("kind", "the name of a search, such as \"random\"")?;
    let kind = kind.choice("search", &KINDS)?;
    let keys = |own: &[&str], rungs: bool| {
        let rungs = if rungs { &RUNGS[..] } else { &[] };
        let all: Vec<&str> = ["kind"].iter().chain(own).chain(rungs).copied().collect();
        table.only(&all)
    };
    let Setting { space, seed, .. } = setting;
    let made =
        |result: Result<Box<dyn Search>, SearchError>| result.map_err(|error| at(table, &error));
    let trials = || table.needed::<u64>("trials");
    match kind {
        Kind::Grid => {
            keys(&[], false)?;
            made(Grid::new(space).map(boxed))
        }
        Kind::List => {
            keys(&["configs"], false)?;
            made(Grid::of(configs(table, space)?).map(boxed))
        }
        Kind::Random => {
            keys(&["trials"], false)?;
            made(Random::new(space, trials()?, seed).map(boxed))
        }
        Kind::QuasiRandom => {
            keys(&["trials"], false)?;
            made(QuasiRandom::new(space, trials()?, seed).map(boxed))
        }
        Kind::Tpe => {
            keys(&["trials", "multivariate", "startup", "random_share"], false)?;
            tpe(table, setting, trials()?)
        }
        Kind::CmaEs => {
            keys(&["trials", "population", "compared_after"], false)?;
            cma_es(table, setting, trials()?)
        }
        Kind::Asha => {
            keys(&["trials", "over"], true)?;
            let rungs = rungs(table, setting)?;
            Ok(boxed(Asha::new(inner(table, setting, None)?, rungs)))
        }
        Kind::SuccessiveHalving => {
            keys(&["trials", "over"], true)?;
            let (trials, rungs) = (trials()?, rungs(table, setting)?);
            let inner = inner(table, setting, Some(trials))?;
            made(SuccessiveHalving::new(inner, trials, rungs).map(boxed))
        }
        Kind::Hyperband => {
            keys(&["rounds", "sizes", "over"], true)?;
            let rungs = rungs(table, setting)?;
            let rounds = table.optional("rounds")?.unwrap_or(1);
            let sizes = [("algorithm", BracketSizes::Algorithm), ("table", BracketSizes::Table)];
            let sizes = match table.get("sizes") {
                Some(item) => item.choice("way to size brackets", &sizes)?,
                None => BracketSizes::default(),
            };
            let trials = Hyperband::<Random>::trials(&rungs, sizes, rounds);
            let inner = inner(table, setting, Some(trials))?;
            made(Hyperband::new(inner, rungs, sizes, rounds).map(boxed))
        }
        Kind::Bohb => {
            keys(&["rounds"], true)?;
            let rounds = table.optional("rounds")?.unwrap_or(1);
            made(Hyperband::bohb(space, rungs(table, setting)?, rounds, seed).map(boxed))
        }
        Kind::MedianStopping => {
            keys(&["trials", "over", "first_epoch", "min_trials"], false)?;
            let first = table.optional("first_epoch")?.unwrap_or(1);
            let least = table.optional("min_trials")?.unwrap_or(3);
            made(MedianStopping::new(inner(table, setting, None)?, first, least).map(boxed))
        }
        Kind::Population => {
            keys(&["size", "explored", "interval"], false)?;
            let explored: Vec<String> = table.needed("explored")?;
            let known: Vec<&str> =
                space.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
            if let Some(wrong) = explored.iter().find(|name| !known.contains(&name.as_str())) {
                let nearest = suggestion(wrong, &known);
                let message = format!("the space has no hyperparameter `{wrong}`; {nearest}");
                return Err(table.fault_at("explored", message));
            }
            let search = Population::new(space, table.needed("size")?, explored, seed);
            let interval = table.optional("interval")?.unwrap_or(1);
            made(search.and_then(|search| search.with_interval(interval)).map(boxed))
        }
    }
}

fn boxed(search: impl Search + 'static) -> Box<dyn Search> {
    Box::new(search)
}

/// The fault at the setting that is wrong.
fn at(table: &Table<'_>, error: &SearchError) -> Fault {
    if let SearchError::Space(SpaceError::ContinuousGrid { name, domain }) = error {
        return table.fault_at(
            "kind",
            format!(
                "`{name}` is continuous ({domain}): a grid needs `points = 5`, or another number, \
                 beside its domain in [space], or a `choice` instead"
            ),
        );
    }
    let key = match error {
        SearchError::Setting { setting, .. } => setting,
        SearchError::NoTrials => "trials",
        _ => "kind",
    };
    table.fault_at(key, error.to_string())
}

fn tpe(table: &Table<'_>, setting: Setting<'_>, trials: u64) -> Result<Box<dyn Search>, Fault> {
    let Setting { space, seed, .. } = setting;
    let multivariate = table.optional("multivariate")?.unwrap_or(true);
    let search = if multivariate {
        Tpe::multivariate(space, trials, seed)
    } else {
        Tpe::univariate(space, trials, seed)
    };
    let mut search = search.map_err(|error| at(table, &error))?;
    if let Some(startup) = table.optional("startup")? {
        search = search.with_startup(startup).map_err(|error| at(table, &error))?;
    }
    if let Some(share) = table.optional("random_share")? {
        search = search.with_random_share(share).map_err(|error| at(table, &error))?;
    }
    Ok(boxed(search))
}

#[cfg(not(feature = "cma-es"))]
fn cma_es(table: &Table<'_>, _: Setting<'_>, _: u64) -> Result<Box<dyn Search>, Fault> {
    let text = "`cma_es` is not in this program: build it with `--features cerebro-tune/cma-es`, or take `tpe`";
    Err(table.fault_at("kind", text))
}

#[cfg(feature = "cma-es")]
fn cma_es(table: &Table<'_>, setting: Setting<'_>, trials: u64) -> Result<Box<dyn Search>, Fault> {
    let wrong = |error: SearchError| at(table, &error);
    let mut search =
        cerebro_core::search::CmaEs::new(setting.space, trials, setting.seed).map_err(wrong)?;
    if let Some(results) = table.optional("population")? {
        search = search.with_population(results).map_err(wrong)?;
    }
    if let Some(epochs) = table.optional("compared_after")? {
        search = search.compared_after(epochs).map_err(wrong)?;
    }
    Ok(boxed(search))
}

fn rungs(table: &Table<'_>, setting: Setting<'_>) -> Result<Rungs, Fault> {
    let least = table.optional("min_epochs")?.unwrap_or(1);
    let most = table.optional("max_epochs")?.unwrap_or(setting.epochs);
    let reduction = table.optional("reduction")?.unwrap_or(3);
    if most > setting.epochs {
        return Err(table.fault_at(
            "max_epochs",
            format!(
                "the highest rung has {most} epochs, but a trial of the experiment has {}; \
                 raise `epochs` or lower `max_epochs`",
                setting.epochs
            ),
        ));
    }
    Rungs::new(least, most, reduction).map_err(|error| at(table, &error))
}

/// The search that proposes Configs for one that saves epochs: `over`, or else a random one.
fn inner(
    table: &Table<'_>,
    setting: Setting<'_>,
    trials: Option<u64>,
) -> Result<Box<dyn Search>, Fault> {
    if let Some(over) = table.table("over")? {
        if trials.is_none()
            && let Some(item) = table.get("trials")
        {
            let message = "`trials` belongs to the search in `over`, which says its own";
            return Err(item.fault(message));
        }
        return read(&over, setting);
    }
    let trials = match trials {
        Some(trials) => trials,
        None => table.needed("trials")?,
    };
    let random = Random::new(setting.space, trials, setting.seed);
    random.map(boxed).map_err(|error| at(table, &error))
}

/// The Configs of a list, each of which has to be in the space.
fn configs(table: &Table<'_>, space: &Space) -> Result<Vec<Config>, Fault> {
    let item = table.item_needed("configs", "a list of tables of hyperparameters")?;
    let items = item.list().ok_or_else(|| item.expected("a list of tables"))?;
    let mut configs = Vec::new();
    for item in items {
        let config: Config = item.read()?;
        if let Err(error) = space.check(&config) {
            return Err(item.fault(format!("this Config is not in the space: {error}")));
        }
        configs.push(config);
    }
    Ok(configs)
}

/// Reads `[stop]`: the rules, and the seconds after which the experiment is stopped.
pub fn stop(
    table: &Table<'_>,
    search: Box<dyn Search>,
) -> Result<(Box<dyn Search>, Option<f64>), Fault> {
    table.only(&["target", "epochs", "no_improvement", "wall_seconds"])?;
    let mut rules = Vec::new();
    rules.extend(table.optional("target")?.map(StopRule::Target));
    rules.extend(table.optional("epochs")?.map(StopRule::Epochs));
    if let Some(rule) = table.table("no_improvement")? {
        rule.only(&["epochs", "least"])?;
        let (epochs, least) = (rule.needed("epochs")?, rule.optional("least")?.unwrap_or(0.0));
        rules.push(StopRule::NoImprovement { epochs, least });
    }
    let wall: Option<f64> = table.optional("wall_seconds")?;
    if let Some(seconds) = wall
        && !(seconds > 0.0 && seconds < 1e9)
    {
        let message = format!("{seconds} seconds are no wall time; give more than 0");
        return Err(table.fault_at("wall_seconds", message));
    }
    if rules.is_empty() {
        return Ok((search, wall));
    }
    let search = StopWhen::new(search, rules).map_err(|error| at(table, &error))?;
    Ok((boxed(search), wall))
}
