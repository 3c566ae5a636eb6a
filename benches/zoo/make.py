"""Trained models of scikit-learn and LightGBM as their users export them: `make.py FOLDER` writes FOLDER/NAME.onnx."""

import sys

import lightgbm
import numpy
import onnxmltools
from onnxmltools.convert.common.data_types import FloatTensorType as LightGbmFloats
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

folder = sys.argv[1]
rng = numpy.random.default_rng(0)
x = rng.normal(size=(600, 16)).astype(numpy.float32)
y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(numpy.int64) + (x[:, 3] > 1)


def write(name, model):
    with open(f"{folder}/{name}.onnx", "wb") as f:
        f.write(model.SerializeToString())


for name, model in {
    "sklearn_forest": RandomForestClassifier(100, max_depth=6, random_state=0),
    "sklearn_scaled_logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "sklearn_svc": SVC(),
    "sklearn_mlp": MLPClassifier((32, 16), max_iter=50, random_state=0),
    "sklearn_boosting": GradientBoostingRegressor(random_state=0),
}.items():
    model.fit(x, y)
    options = {"zipmap": False} if hasattr(model, "predict_proba") or name == "sklearn_svc" else None
    write(name, to_onnx(model, x[:1], options=options, target_opset={"": 18, "ai.onnx.ml": 3}))

model = lightgbm.LGBMClassifier(n_estimators=100, max_depth=6, verbose=-1, random_state=0)
model.fit(x, y)
write(
    "lightgbm",
    onnxmltools.convert_lightgbm(
        model, initial_types=[("X", LightGbmFloats([None, 16]))], zipmap=False, target_opset=15
    ),
)
