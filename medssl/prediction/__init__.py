"""Using a trained network: what a fine-tuning leaves, applied to images that it never saw.

`model` loads one run or several, `inputs` finds the cases, `predict` does the work on one of them and knows neither command
line nor files of results; `results` writes these, `command` is `medssl predict`. A web server calls the same pieces:

    models = load_models([run])
    cases = find_cases(path, channels)
    prediction = predict_case(models, case, Options(), Limits(voxels=...), progress)
    write_case(Place(folder, "image"), models, prediction, Options())
"""
