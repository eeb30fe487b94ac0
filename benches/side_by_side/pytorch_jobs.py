"""The side-by-side job in PyTorch: 16 multilayer perceptrons, each trained on all the data.

    pytorch_jobs.py one  JOB.json DATA     every configuration in this process, one after the other
    pytorch_jobs.py pool JOB.json DATA N   a bare pool of N processes, a configuration per task

Written the fast way: Parquet read once per process with pyarrow, batches sliced from tensors in
memory in a shuffled order (a DataLoader would be 1.6 times slower), one thread per process.
Prints one JSON object: validation accuracy by configuration.
"""

import json
import multiprocessing
import sys

import pyarrow.parquet as parquet
import torch

job = json.load(open(sys.argv[2]))
data = None


def read(split):
    folder = sys.argv[3]
    files = [entry["file"] for entry in json.load(open(f"{folder}/dataset.json"))["partitions"] if entry["split"] == split]
    features, labels = [], []
    for file in files:
        table = parquet.read_table(f"{folder}/{file}")
        column = table.column("x").combine_chunks()
        features.append(torch.from_numpy(column.flatten().to_numpy().copy()).view(table.num_rows, -1))
        labels.append(torch.from_numpy(table.column("y").combine_chunks().to_numpy().copy()))
    return torch.cat(features), torch.cat(labels)


def load():
    global data
    if data is None:
        torch.set_num_threads(1)
        data = read("train"), read("validation")
    return data


def network():
    sizes = [job["features"], *job["hidden"], job["classes"]]
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def train(number):
    config = job["configs"][number]
    (x, y), (validation_x, validation_y) = load()
    torch.manual_seed(number + (1000 if sys.argv[1] == "pool" else 0))
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), config["learning_rate"], momentum=job["momentum"])
    loss = torch.nn.CrossEntropyLoss()
    for _ in range(job["epochs"]):
        model.train()
        order = torch.randperm(len(x))
        for start in range(0, len(x), config["batch_size"]):
            rows = order[start : start + config["batch_size"]]
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
        model.eval()
        right = 0
        with torch.no_grad():
            for start in range(0, len(validation_x), 1024):
                predicted = model(validation_x[start : start + 1024]).argmax(1)
                right += (predicted == validation_y[start : start + 1024]).sum().item()
    return right / len(validation_x)


if __name__ == "__main__":
    numbers = range(len(job["configs"]))
    if sys.argv[1] == "one":
        accuracies = [train(number) for number in numbers]
    else:
        with multiprocessing.get_context("spawn").Pool(int(sys.argv[4])) as pool:
            accuracies = pool.map(train, numbers, chunksize=1)
    print(json.dumps({"accuracies": accuracies}))
