#include "sinkref/tiny_model.h"

#include "base/data_folder.h"
#include "sinkref/error.h"

namespace sinkref {

std::filesystem::path tiny_model() {
  namespace fs = std::filesystem;
  constexpr const char* name = "tiny_llama3";
  std::error_code error;
  const auto is_model = [&](const fs::path& folder) { return fs::exists(folder / "config.json", error); };
  for (fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path(); folder.has_relative_path();
       folder = folder.parent_path())
    for (const char* place : {"reference_outputs", "share/sinkref"})
      if (is_model(folder / place / name)) return folder / place / name;
  if (is_model(fs::path(data_folder) / name)) return fs::path(data_folder) / name;
  throw InputError("--model is missing; expected a Hugging Face folder or a .gguf file");
}

}  // namespace sinkref
