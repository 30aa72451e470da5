"""Makes tests/goldens/data/recurrent.npz: what torch's recurrent networks answer.

Run with torch 2.13.0 installed: python tests/goldens/make_recurrent_goldens.py
"""

from pathlib import Path

import numpy as np
import torch

INPUTS, UNITS, LENGTH, BATCH = 3, 4, 5, 2
NETWORKS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def main() -> None:
    torch.manual_seed(0)
    found = {}
    for kind, network in NETWORKS.items():
        for shape, options in {
            "plain": {},
            "deep": {"num_layers": 2, "bidirectional": True},
        }.items():
            net = network(INPUTS, UNITS, batch_first=True, **options)
            for parameter in net.parameters():
                torch.nn.init.normal_(parameter, std=0.7)
            x = torch.randn(BATCH, LENGTH, INPUTS)
            outputs, _ = net(x)
            outputs.square().sum().backward()
            for name, parameter in net.named_parameters():
                found[f"{kind}/{shape}/weights/{name}"] = parameter.detach().numpy()
                found[f"{kind}/{shape}/gradients/{name}"] = parameter.grad.numpy()
            found[f"{kind}/{shape}/x"] = x.numpy()
            found[f"{kind}/{shape}/outputs"] = outputs.detach().numpy()
    np.savez_compressed(Path(__file__).parent / "data" / "recurrent.npz", **found)


if __name__ == "__main__":
    main()
