"""The networks of step_time.py in PyTorch: written to ONNX files for Cerebro, and trained.

    nets.py export FOLDER NET...             writes NET/model.onnx, NET/job.json and NET/TENSOR.npy
    nets.py work FOLDER THREADS eager|compile   answers requests on standard input, a line each

Every network is trained as people write it: rows gathered from tensors in memory in a shuffled
order, the loss added up without waiting for it, the optimizer's defaults.
"""

import json
import pathlib
import sys
import time

import numpy
import torch
from torch import nn

WARM_UP_STEPS = 3
BATCHES = 4


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.around = None
        if stride != 1 or inputs != outputs:
            self.around = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = torch.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return torch.relu(y + (x if self.around is None else self.around(x)))


class InvertedBottleneck(nn.Module):
    """MBConv: expansion, depthwise convolution, projection (Sandler et al. 2018)."""

    def __init__(self, inputs, outputs, stride, expansion=4):
        super().__init__()
        wide = inputs * expansion
        self.same = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.SiLU(),
            nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return x + self.body(x) if self.same else self.body(x)


class Transformer(nn.Module):
    def __init__(self, width=128, heads=4, layers=2, length=64, words=1000, classes=10):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.last = nn.Linear(width, classes)

    def forward(self, x):
        return self.last(self.encoder(self.words(x) + self.places).mean(1))


class Tabular(nn.Module):
    """Categories and numbers, as in the Rossmann store sales example of the original system."""

    CATEGORIES = [1116, 8, 4, 13, 32, 53, 5, 4, 4, 9, 13, 26, 9, 23, 13, 22, 22, 3]
    NUMBERS = 20

    def __init__(self):
        super().__init__()
        widths = [min(50, (count + 1) // 2) for count in self.CATEGORIES]
        self.tables = nn.ModuleList(nn.Embedding(count, width) for count, width in zip(self.CATEGORIES, widths))
        self.dense = nn.Sequential(
            nn.Linear(sum(widths) + self.NUMBERS, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU(),
            nn.Linear(1000, 500), nn.ReLU(), nn.Linear(500, 1))

    def forward(self, categories, numbers):
        parts = [table(categories[:, index]) for index, table in enumerate(self.tables)]
        return self.dense(torch.cat([*parts, numbers], 1))


class Recurrent(nn.Module):
    """One recurrent layer of `kind`, and a linear one on its last state."""

    def __init__(self, kind, features=32, width=128, classes=10):
        super().__init__()
        self.layer = kind(features, width, batch_first=True)
        self.last = nn.Linear(width, classes)

    def forward(self, x):
        return self.last(self.layer(x)[0][:, -1])


class Words(nn.Module):
    """A network of `transformers` that reads numbers of words; of several scores per word, these come first."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        scores = self.network(input_ids=x, attention_mask=torch.ones_like(x)).logits
        return scores.transpose(1, 2) if scores.dim() == 3 else scores


def of_torchvision(name, **settings):
    import torchvision

    return getattr(torchvision.models, name)(weights=None, **settings)


def bert():
    import transformers

    config = transformers.BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2,
                                     attn_implementation="eager")
    return Words(transformers.BertForSequenceClassification(config))


def gpt2():
    import transformers

    config = transformers.GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
                                     attn_implementation="eager")
    return Words(transformers.GPT2LMHeadModel(config))


def mlp(*sizes):
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn():
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        Residual(32, 32, 1), Residual(32, 64, 2), Residual(64, 128, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def mbconv():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU(),
        InvertedBottleneck(16, 24, 2), InvertedBottleneck(24, 24, 1), InvertedBottleneck(24, 40, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10))


def floats(*shape):
    return lambda rows: torch.randn(rows, *shape)


def whole(limits, *shape):
    return lambda rows: torch.stack([torch.randint(limit, (rows, *shape)) for limit in limits], -1)


def labels(classes):
    return lambda rows: torch.randint(classes, (rows,))


def words(count, length):
    return lambda rows: torch.randint(count, (rows, length))


def answers(rows):
    return torch.randint(2, (rows, 1)).float()


CROSS_ENTROPY, BINARY, SQUARED = "cross_entropy", "bce_with_logits", "mse"
LOSSES = {CROSS_ENTROPY: nn.CrossEntropyLoss, BINARY: nn.BCEWithLogitsLoss, SQUARED: nn.MSELoss}
SGD = {"optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.9}
ADAM = {"optimizer": "adam", "learning_rate": 0.001}
# With few rows, as deep networks are measured with here, larger steps are unstable.
SMALL_SGD = {**SGD, "learning_rate": 0.0001}

# name: network, inputs, target, loss, optimizer, rows of a batch
NETS = {
    "mlp-small-sgd": (lambda: mlp(692, 100, 1), {"x": floats(692)}, answers, BINARY, SGD, 32),
    "mlp-small-adam": (lambda: mlp(692, 100, 1), {"x": floats(692)}, answers, BINARY, ADAM, 32),
    "mlp-large-sgd": (lambda: mlp(784, 1024, 1024, 10), {"x": floats(784)}, labels(10), CROSS_ENTROPY, SGD, 256),
    "mlp-large-adam": (lambda: mlp(784, 1024, 1024, 10), {"x": floats(784)}, labels(10), CROSS_ENTROPY, ADAM, 256),
    "cnn": (cnn, {"x": floats(3, 32, 32)}, labels(10), CROSS_ENTROPY, SGD, 64),
    "transformer": (Transformer, {"x": words(1000, 64)}, labels(10), CROSS_ENTROPY, ADAM, 32),
    "tabular": (Tabular, {"categories": whole(Tabular.CATEGORIES), "numbers": floats(Tabular.NUMBERS)},
                floats(1), SQUARED, ADAM, 64),
    "mbconv": (mbconv, {"x": floats(3, 32, 32)}, labels(10), CROSS_ENTROPY, SGD, 64),
    "lstm": (lambda: Recurrent(nn.LSTM), {"x": floats(64, 32)}, labels(10), CROSS_ENTROPY, ADAM, 32),
    "gru": (lambda: Recurrent(nn.GRU), {"x": floats(64, 32)}, labels(10), CROSS_ENTROPY, ADAM, 32),
    "rnn": (lambda: Recurrent(nn.RNN), {"x": floats(64, 32)}, labels(10), CROSS_ENTROPY, ADAM, 32),
    # Of the sizes that are in use, without dropout, which no two programs draw alike.
    "resnet50": (lambda: of_torchvision("resnet50"), {"x": floats(3, 224, 224)}, labels(1000), CROSS_ENTROPY, SMALL_SGD, 4),
    "convnext-tiny": (lambda: of_torchvision("convnext_tiny", stochastic_depth_prob=0.0), {"x": floats(3, 224, 224)},
                      labels(1000), CROSS_ENTROPY, SMALL_SGD, 4),
    "vit-b-16": (lambda: of_torchvision("vit_b_16"), {"x": floats(3, 224, 224)}, labels(1000), CROSS_ENTROPY, ADAM, 2),
    "bert-base": (bert, {"x": words(30522, 64)}, labels(2), CROSS_ENTROPY, ADAM, 4),
    "gpt2": (gpt2, {"x": words(50257, 64)}, words(50257, 64), CROSS_ENTROPY, ADAM, 2),
}


def made(name):
    """The network with its initial values, its data and its settings; always the same ones."""
    network, inputs, target, loss, settings, rows = NETS[name]
    torch.manual_seed(1)
    network = network()
    tensors = {key: values(BATCHES * rows) for key, values in inputs.items()}
    return network, tensors, target(BATCHES * rows), loss, settings, rows


def export(folder, name):
    network, tensors, target, loss, settings, rows = made(name)
    place = pathlib.Path(folder) / name
    place.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    torch.onnx.export(network, tuple(tensor[:rows] for tensor in tensors.values()), place / "model.onnx",
                      input_names=names, output_names=["output"], opset_version=18, dynamo=False,
                      training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False,
                      dynamic_axes={key: {0: "batch"} for key in [*names, "output"]})
    for key, tensor in {**tensors, "y": target}.items():
        numpy.save(place / f"{key}.npy", tensor.numpy())
    (place / "job.json").write_text(json.dumps({"inputs": names, "loss": loss, "batch_size": rows, **settings}))


def work_of_a_step(name):
    """Floating-point operations of products, and bytes that must move at least.

    Bytes: each activation is written and read forward and so is its gradient backward; each
    parameter and each tensor of the optimizer's state is read and written, its gradient written
    and read, and the parameter is read by the forward and by the backward pass.
    """
    from torch.utils.flop_counter import FlopCounterMode

    network, tensors, target, loss, settings, rows = made(name)
    activations = []
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _, __, output: activations.append(
                (output[0] if isinstance(output, tuple) else output).numel()))
    counter = FlopCounterMode(display=False)
    with counter:
        output = network(*(tensor[:rows] for tensor in tensors.values()))
        LOSSES[loss]()(output, target[:rows]).backward()
    flops = counter.get_total_flops()
    if name == "lstm":
        # The counter does not see into this kernel, unlike the other recurrent ones: per step two products of four gates.
        lstm = network.layer
        flops += 3 * 2 * rows * 64 * 4 * lstm.hidden_size * (lstm.input_size + lstm.hidden_size)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    slots = {"adam": 2, "sgd": 1}[settings["optimizer"]]
    return flops, 4 * (4 * sum(activations) + parameters * (2 + 2 * (1 + slots) + 2))


class Training:
    def __init__(self, name, compiled):
        self.network, self.tensors, self.target, loss, settings, self.rows = made(name)
        self.loss = LOSSES[loss]()
        parameters = self.network.parameters()
        if settings["optimizer"] == "adam":
            self.optimizer = torch.optim.Adam(parameters, settings["learning_rate"])
        else:
            self.optimizer = torch.optim.SGD(parameters, settings["learning_rate"], momentum=settings["momentum"])
        self.forward = self.forward_and_loss
        if compiled:
            self.forward = torch.compile(self.forward_and_loss)

    def forward_and_loss(self, *batch):
        *inputs, target = batch
        return self.loss(self.network(*inputs), target)

    def steps(self, count):
        total, left = torch.zeros(()), count
        while left > 0:
            order = torch.randperm(len(self.target))
            for start in range(0, len(order), self.rows):
                if left == 0:
                    break
                rows = order[start : start + self.rows]
                batch = [tensor[rows] for tensor in self.tensors.values()] + [self.target[rows]]
                self.optimizer.zero_grad()
                loss = self.forward(*batch)
                loss.backward()
                self.optimizer.step()
                total += loss.detach()
                left -= 1
        return total.item() / count

    def losses(self, count):
        """Losses of `count` steps on the first batch, from the initial values."""
        batch = [tensor[: self.rows] for tensor in self.tensors.values()] + [self.target[: self.rows]]
        found = []
        for _ in range(count):
            self.optimizer.zero_grad()
            loss = self.forward(*batch)
            loss.backward()
            self.optimizer.step()
            found.append(loss.item())
        return found


def resident(what):
    for line in open("/proc/self/status"):
        if line.startswith(what):
            return 1024 * int(line.split()[1])


def memory(name, compiled, steps):
    """Resident bytes before the network is there, and at the peak of its steps."""
    Training("mlp-small-sgd", False).steps(1)
    before = resident("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    training = Training(name, compiled)
    training.steps(steps)
    return {"before": before, "peak": resident("VmHWM")}


def peaks(threads):
    """Floating-point operations and bytes per second of this machine: the best of some tries."""
    size = 1536
    a, b = torch.randn(size, size), torch.randn(size, size)
    vast = torch.zeros(1 << 26)
    copy = torch.empty_like(vast)
    best = {"flops": 0.0, "bytes": 0.0}
    for _ in range(8):
        begun = time.perf_counter()
        torch.mm(a, b)
        best["flops"] = max(best["flops"], 2 * size**3 / (time.perf_counter() - begun))
        begun = time.perf_counter()
        copy.copy_(vast)
        best["bytes"] = max(best["bytes"], 2 * 4 * vast.numel() / (time.perf_counter() - begun))
    return best


def work(threads, mode):
    torch.set_num_threads(threads)
    trainings = {}
    for line in sys.stdin:
        what, *arguments = line.split()
        if what == "losses":
            answer = {"losses": Training(arguments[0], mode == "compile").losses(3)}
        elif what == "steps":
            name, count = arguments[0], int(arguments[1])
            if name not in trainings:
                trainings[name] = Training(name, mode == "compile")
                trainings[name].steps(WARM_UP_STEPS)
            begun = time.perf_counter()
            trainings[name].steps(count)
            answer = {"seconds": (time.perf_counter() - begun) / count}
        elif what == "memory":
            answer = memory(arguments[0], mode == "compile", int(arguments[1]))
        elif what == "peaks":
            answer = peaks(threads)
        elif what == "work":
            flops, moved = work_of_a_step(arguments[0])
            answer = {"flops": flops, "bytes": moved}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "export":
        for name in sys.argv[3:]:
            export(sys.argv[2], name)
    else:
        work(int(sys.argv[3]), sys.argv[4])
