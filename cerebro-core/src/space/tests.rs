use super::*;

fn conditional() -> Space {
    Space::builder()
        .choice("optimizer", ["adam", "sgd"])
        .choice("schedule", ["constant", "cosine"])
        .when("optimizer", ["sgd"])
        .uniform("momentum", 0.5, 0.9)
        .when("optimizer", ["sgd"])
        .int("warmup", 1, 3)
        .when("schedule", ["cosine"])
        .loguniform("learning_rate", 1e-4, 1e-1)
        .build()
        .unwrap()
}

fn fault(builder: SpaceBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

#[test]
fn every_sample_is_in_the_space_and_nested_conditions_hold() {
    let space = conditional();
    let mut warm = 0;
    for seed in 0..500 {
        let config = space.sample(Seed(seed));
        space.check(&config).unwrap();
        let sgd = config.text("optimizer") == Ok("sgd");
        assert_eq!(config.get("momentum").is_some(), sgd);
        assert_eq!(config.get("schedule").is_some(), sgd);
        let cosine = sgd && config.text("schedule") == Ok("cosine");
        assert_eq!(config.get("warmup").is_some(), cosine);
        warm += usize::from(cosine);
    }
    assert!((80..170).contains(&warm), "a quarter of 500 is expected, found {warm}");
}

#[test]
fn a_sample_depends_on_the_seed_and_the_name_only() {
    let small = Space::builder().uniform("a", 0.0, 1.0).build().unwrap();
    let large = Space::builder().int("b", 0, 9).uniform("a", 0.0, 1.0).build().unwrap();
    assert_eq!(small.sample(Seed(3)).get("a"), large.sample(Seed(3)).get("a"));
    assert_ne!(small.sample(Seed(3)), small.sample(Seed(4)));
}

#[test]
fn values_are_distributed_as_their_domains_say() {
    let space = Space::builder()
        .loguniform("log", 1e-4, 1e-1)
        .quniform("step", 0.1, 0.9, 0.2)
        .qloguniform("width", 1.0, 8.0, 1.0)
        .int("layers", 1, 4)
        .build()
        .unwrap();
    let count = 20_000;
    let configs: Vec<Config> = (0..count).map(|seed| space.sample(Seed(seed))).collect();
    let share = |test: &dyn Fn(&Config) -> bool| {
        configs.iter().filter(|config| test(config)).count() as f64 / count as f64
    };
    let near = |found: f64, expected: f64| {
        assert!((found - expected).abs() < 0.015, "{found}, expected {expected}");
    };
    for decade in [1e-4, 1e-3, 1e-2] {
        let within = decade..decade * 10.0;
        near(share(&|config| within.contains(&config.float("log").unwrap())), 1.0 / 3.0);
    }
    for step in [0.2, 0.4, 0.6, 0.8] {
        near(share(&|config| config.float("step") == Ok(step)), 0.25);
    }
    for width in 1..=8 {
        let v = f64::from(width);
        let expected = ((v + 0.5) / (v - 0.5)).ln() / (8.5f64 / 0.5).ln();
        near(share(&|config| config.float("width") == Ok(v)), expected);
        let domain = &space.parameter("width").unwrap().domain;
        let (low, high) = domain.cell(&Value::from(v)).unwrap();
        assert!((high - low - expected).abs() < 1e-12);
    }
    for layers in 1..=4 {
        near(share(&|config| config.int("layers") == Ok(layers)), 0.25);
    }
}

#[test]
fn a_value_and_its_position_say_the_same() {
    let domains = [
        Domain::Choice(vec!["a".into(), "b".into(), "c".into()]),
        Domain::Uniform { min: -2.0, max: 5.0 },
        Domain::LogUniform { min: 1e-5, max: 1.0 },
        Domain::QUniform { min: -0.3, max: 0.7, quantum: 0.1 },
        Domain::QLogUniform { min: 16.0, max: 512.0, quantum: 16.0 },
        Domain::Int { min: -3, max: 12 },
    ];
    for domain in domains {
        for step in 0..=100 {
            let value = domain.at(f64::from(step) / 100.0);
            assert!(domain.contains(&value), "{value} is in {domain}");
            let again = domain.at(domain.position(&value).unwrap());
            match (&value, &again) {
                (Value::Float(a), Value::Float(b)) => {
                    assert!((a - b).abs() <= 1e-12 * a.abs().max(1.0), "{a} and {b} of {domain}");
                }
                _ => assert_eq!(value, again),
            }
        }
    }
}

#[test]
fn quantised_values_are_the_decimals_that_people_write() {
    let domain = Domain::QUniform { min: 0.1, max: 0.7, quantum: 0.1 };
    let values: Vec<String> = domain.grid(None).unwrap().iter().map(Value::to_string).collect();
    assert_eq!(values, ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"]);
    assert!(domain.contains(&Value::from(0.1 + 0.2)));
    assert!(!domain.contains(&Value::from(0.35)));
    assert!(!domain.contains(&Value::from(0.8)));
}

#[test]
fn a_grid_expands_active_hyperparameters_only() {
    let space = Space::builder()
        .choice("optimizer", ["adam", "sgd"])
        .choice("momentum", [0.5, 0.9])
        .when("optimizer", ["sgd"])
        .loguniform("learning_rate", 1e-4, 1e-2)
        .points(3)
        .build()
        .unwrap();
    let grid: Vec<String> = space.grid().unwrap().iter().map(Config::to_string).collect();
    assert_eq!(grid.len(), 9);
    assert_eq!(grid[0], "learning_rate=1e-4 optimizer=adam");
    assert_eq!(grid[8], "learning_rate=0.01 momentum=0.9 optimizer=sgd");
    assert!(space.grid().unwrap().iter().all(|config| space.contains(config)));
    let middle = space.grid().unwrap()[1].float("learning_rate").unwrap();
    assert!((middle - 1e-3).abs() < 1e-12, "{middle}");
}

#[test]
fn a_grid_over_a_continuous_domain_asks_for_points() {
    let message = conditional().grid().unwrap_err().to_string();
    assert!(message.contains("`momentum`") && message.contains(".points(n)"), "{message}");
    let huge = Space::builder().int("a", 0, 9_999).int("b", 0, 9_999).build().unwrap();
    assert_eq!(huge.grid().unwrap_err(), SpaceError::GridTooLarge { limit: GRID_LIMIT });
}

#[test]
fn a_declaration_that_cannot_be_is_refused_with_the_reason() {
    let build = Space::builder;
    assert_eq!(build().build().unwrap_err(), SpaceError::Empty);
    assert!(fault(build().uniform("a", 1.0, 1.0)).contains("min must be less than max"));
    assert!(fault(build().uniform("a", 0.0, f64::NAN)).contains("finite"));
    assert!(fault(build().uniform("a", f64::MIN, f64::MAX)).contains("finite"));
    assert!(fault(build().int("a", 4, 2)).contains("`a`: int(4, 2): min must be less"));
    assert!(fault(build().loguniform("a", -4.0, -1.0)).contains("not exponents"));
    assert!(fault(build().loguniform("a", 0.0, 1.0)).contains("above 0"));
    assert!(fault(build().quniform("a", 0.0, 1.0, 0.0)).contains("quantum must be above 0"));
    assert!(fault(build().quniform("a", 0.1, 0.2, 0.5)).contains("no multiple"));
    assert!(fault(build().choice("a", Vec::<i64>::new())).contains("nothing to choose from"));
    assert!(fault(build().choice("a", [1, 2, 1])).contains("twice"));
    assert!(fault(build().int("a", 0, 1).int("a", 0, 1)).contains("`a` is declared twice"));
    assert!(fault(build().points(3)).contains("`points`"));
    assert!(fault(build().choice("a", [1, 2]).points(3)).contains("all values of a choice"));
}

#[test]
fn a_condition_that_cannot_hold_is_refused() {
    let base = || Space::builder().choice("optimizer", ["adam", "sgd"]).uniform("rate", 0.1, 1.0);
    let unknown = fault(base().int("x", 0, 1).when("optimiser", ["sgd"]));
    assert!(unknown.contains("did you mean `optimizer`?"), "{unknown}");
    assert!(fault(base().int("x", 0, 1).when("x", [1])).contains("not declared before"));
    assert!(fault(base().int("x", 0, 1).when("optimizer", ["sdg"])).contains("sdg is not a value"));
    assert!(fault(base().int("x", 0, 1).when("rate", [0.5])).contains("needs a choice or an int"));
    let never = fault(base().int("x", 0, 1).when("optimizer", Vec::<&str>::new()));
    assert!(never.contains("never holds"));
}

#[test]
fn a_config_outside_the_space_is_told_why() {
    let space = conditional();
    let config =
        |optimizer: &str| Config::new().with("optimizer", optimizer).with("learning_rate", 0.01);
    space.check(&config("adam")).unwrap();
    let told = |config: &Config| space.check(config).unwrap_err().to_string();
    assert!(told(&config("rmsprop")).contains("rmsprop is outside choice(adam, sgd)"));
    assert!(told(&config("sgd")).contains("has no `schedule`"));
    let inactive = told(&config("adam").with("momentum", 0.9));
    assert!(inactive.contains("active only when optimizer = sgd"), "{inactive}");
    let high = told(&config("adam").with("learning_rate", 1.0));
    assert!(high.contains("`learning_rate` = 1 is outside loguniform(1e-4, 0.1)"), "{high}");
    let unknown = told(&config("adam").with("momentun", 0.9));
    assert!(unknown.contains("did you mean `momentum`?"), "{unknown}");
    assert!(!told(&config("adam").with("zzz", 0.9)).contains("did you mean"));
}

#[test]
fn a_space_survives_serialisation_and_is_checked_when_read() {
    let space = conditional();
    let json = serde_json::to_string(&space).unwrap();
    assert_eq!(serde_json::from_str::<Space>(&json).unwrap(), space);
    let bad = r#"[{"name": "a", "uniform": {"min": 2.0, "max": 1.0}}]"#;
    let error = serde_json::from_str::<Space>(bad).unwrap_err().to_string();
    assert!(error.contains("min must be less than max"), "{error}");
}

#[test]
fn a_space_prints_one_hyperparameter_a_line() {
    let printed = conditional().to_string();
    assert!(printed.starts_with("optimizer ~ choice(adam, sgd)\n"));
    assert!(printed.contains("\nmomentum ~ uniform(0.5, 0.9) when optimizer = sgd\n"));
}
