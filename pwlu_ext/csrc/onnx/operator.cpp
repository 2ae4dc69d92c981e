// pwlu::folded as a custom operator of ONNX Runtime, float32, on its CPU provider and its threads. The
// library is what register_custom_ops_library takes, and needs neither torch nor Python.
#include <onnxruntime_c_api.h>

#include <exception>
#include <memory>
#include <vector>

#include "../cpu/folded.h"
#include "../shapes.h"

namespace pwlu::onnx {
namespace {

// The oldest with KernelContext_ParallelFor; a newer header's fields of OrtCustomOp are not looked at then.
constexpr uint32_t kApiVersion = 17;
static_assert(ORT_API_VERSION >= kApiVersion, "pwlu needs the header of ONNX Runtime 1.17 or newer");

// What ONNX Runtime answered to a call that failed.
struct Refusal {
  OrtStatus* status;
};

void check(OrtStatus* status) {
  if (status != nullptr)
    throw Refusal{status};
}

// No exception may reach ONNX Runtime: what f throws becomes a status.
template <typename F>
OrtStatus* status_of(const OrtApi& api, const F& f) noexcept {
  try {
    f();
    return nullptr;
  } catch (const Refusal& refusal) {
    return refusal.status;
  } catch (const std::invalid_argument& error) {
    return api.CreateStatus(ORT_INVALID_ARGUMENT, error.what());
  } catch (const std::exception& error) {
    return api.CreateStatus(ORT_RUNTIME_EXCEPTION, error.what());
  }
}

// A tensor as shapes.h asks for it; those of ONNX Runtime are contiguous.
class Value {
 public:
  Value(const OrtApi& api, const OrtKernelContext* context, size_t index) {
    const OrtValue* value = nullptr;
    check(api.KernelContext_GetInput(context, index, &value));
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api.GetTensorTypeAndShape(value, &info));
    const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(api.ReleaseTensorTypeAndShapeInfo)> owner(
        info, api.ReleaseTensorTypeAndShapeInfo);
    size_t dims = 0;
    check(api.GetDimensionsCount(info, &dims));
    sizes_.resize(dims);
    check(api.GetDimensions(info, sizes_.data(), dims));
    void* data = nullptr;
    check(api.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
    data_ = static_cast<const float*>(data);
  }

  const std::vector<int64_t>& sizes() const { return sizes_; }
  const float* data() const { return data_; }
  int64_t dim() const { return static_cast<int64_t>(sizes_.size()); }
  int64_t size(int64_t dim) const { return sizes_[dim]; }
  int64_t numel() const { return product_from(0); }
  int64_t stride(int64_t dim) const { return product_from(dim + 1); }

 private:
  int64_t product_from(int64_t dim) const {
    int64_t product = 1;
    for (; dim < this->dim(); ++dim)
      product *= size(dim);
    return product;
  }

  std::vector<int64_t> sizes_;
  const float* data_;
};

float* output_like(const OrtApi& api, OrtKernelContext* context, const Value& x) {
  OrtValue* value = nullptr;
  check(api.KernelContext_GetOutput(context, 0, x.sizes().data(), x.sizes().size(), &value));
  void* data = nullptr;
  check(api.GetTensorMutableData(value, &data));
  return static_cast<float*>(data);
}

// The session's threads, as cpu/division.h asks for them. Their number is unknown here: each grain is a task.
struct SessionThreads {
  const OrtApi& api;
  const OrtKernelContext* context;

  template <typename Piece>
  void operator()(int64_t count, int64_t grain, const Piece& piece) const {
    auto task = [&](size_t index) {
      const int64_t begin = static_cast<int64_t>(index) * grain;
      piece(begin, std::min(begin + grain, count));
    };
    const auto call = [](void* of, size_t index) { (*static_cast<decltype(task)*>(of))(index); };
    check(api.KernelContext_ParallelFor(context, call, cpu::divide_up(count, grain), 0, &task));
  }
};

// One node of a graph.
struct Kernel {
  const OrtApi& api;
  int64_t channel_dim;

  void compute(OrtKernelContext* context) const {
    const auto input = [&](size_t index) { return Value(api, context, index); };
    const Value x = input(0), left = input(1), interval = input(2), slopes = input(3), offsets = input(4);
    const int64_t groups = checked_groups(x, left, interval, slopes, offsets, channel_dim);
    const Layout layout = layout_of(x, groups, channel_dim);
    float* y = output_like(api, context, x);
    const cpu::FoldedCurves<float> curves = {layout.channels, static_cast<int>(slopes.size(1) - 2),
                                             left.data(),     interval.data(),
                                             slopes.data(),   offsets.data(),
                                             nullptr};
    if (x.numel() > 0)
      cpu::evaluate_folded(SessionThreads{api, context}, x.data(), y, layout, curves);
  }
};

OrtStatus* create(const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
  return status_of(*api, [&] {
    int64_t channel_dim = 0;
    check(api->KernelInfoGetAttribute_int64(info, "channel_dim", &channel_dim));
    *kernel = new Kernel{*api, channel_dim};
  });
}

OrtStatus* compute(void* kernel, OrtKernelContext* context) {
  const auto* folded = static_cast<const Kernel*>(kernel);
  return status_of(folded->api, [&] { folded->compute(context); });
}

OrtCustomOp make_operator() {
  OrtCustomOp folded = {};
  folded.version = kApiVersion;
  folded.GetName = [](const OrtCustomOp*) { return "folded"; };
  folded.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // the CPU's
  folded.GetInputTypeCount = [](const OrtCustomOp*) { return size_t{5}; };
  folded.GetInputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  folded.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  folded.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  folded.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  folded.GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  folded.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  folded.CreateKernelV2 = &create;
  folded.KernelComputeV2 = &compute;
  folded.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  return folded;
}

// Never released: sessions keep pointers to it.
OrtCustomOpDomain* domain_of(const OrtApi& api) {
  static const OrtCustomOp folded = make_operator();
  static OrtCustomOpDomain* const domain = [&] {
    OrtCustomOpDomain* made = nullptr;
    check(api.CreateCustomOpDomain("pwlu", &made));
    check(api.CustomOpDomain_Add(made, &folded));
    return made;
  }();
  return domain;
}

}  // namespace
}  // namespace pwlu::onnx

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
  using namespace pwlu::onnx;
  const OrtApi* api = base->GetApi(kApiVersion);
  if (api == nullptr)
    return base->GetApi(1)->CreateStatus(ORT_FAIL, "pwlu: the operator needs ONNX Runtime 1.17 or newer.");
  return status_of(*api, [&] { check(api->AddCustomOpDomain(options, domain_of(*api))); });
}
