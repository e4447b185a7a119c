#pragma once

#include "measure/first_layer/first_layer.h"

namespace sinkref {

/// Of the readers alone, with `mark` (may be empty) added to layer 0's attention output, per sink.
template <class T>
std::vector<double> share_of_lone_that_fire(const Model& model, const RunOptions& options,
                                            const FirstLayerInputs& inputs,
                                            const std::vector<double>& mark);

template <class T>
std::vector<LayerDetectors> detectors_by_layer(const Model& model, const RunOptions& options,
                                               const FirstLayerInputs& inputs,
                                               const std::vector<Detector>& layer_zero);

}  // namespace sinkref
