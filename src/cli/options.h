#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace sinkref::cli {

/// What follows an option's name, and the member that it fills.
struct Value {
  std::string argument;  ///< as the help calls it: "N"; a switch has none
  std::string fallback;  ///< what holds without the option: the member's first value
  std::vector<std::string> choices;                ///< where only these are taken
  std::function<void(const std::string&)> read{};  ///< throws InputError "expected …"
  bool several = false;  ///< the option may come several times, with several values each time
  bool* given = nullptr;  ///< set when the option is there
};

/// One row of a command's table of options: all there is to say about it.
struct Option {
  std::string name;  ///< "max-new-tokens"
  Value value;
  std::string help;
  bool unnamed = false;  ///< takes the arguments that no name precedes
};
using OptionTable = std::vector<Option>;

// The kinds of values. Each shows the member's value as the default.
Value text(const char* argument, std::string& into);
Value text(const char* argument, std::optional<std::string>& into);
/// A file or folder to write: not an empty name.
Value place(const char* argument, std::optional<std::string>& into);
Value texts(const char* argument, std::vector<std::string>& into);
/// One word for each time that the option comes: no blank inside.
Value single_words(const char* argument, std::vector<std::string>& into);
Value number(size_t& into, size_t least, size_t most = 999999999);
Value number(std::optional<size_t>& into, size_t least, size_t most = 999999999);
Value flag(bool& into);
Value choice(std::string& into, const std::vector<std::string>& choices);
Value chosen_from(const std::vector<std::string>& choices, const std::string& fallback,
                  std::function<void(size_t)> choose);

/// One of some names, each of which stands for a value.
template <class T>
Value choice(T& into, const std::vector<std::pair<const char*, T>>& choices) {
  std::vector<std::string> names;
  std::string fallback;
  for (const auto& [name, value] : choices) {
    names.push_back(name);
    if (value == into) fallback = name;
  }
  return chosen_from(names, fallback, [&into, choices](size_t i) { into = choices[i].second; });
}

/// The same value, and whether it was given.
Value noted(Value value, bool& given);

/// Tables one after another.
OptionTable joined(const std::vector<OptionTable>& tables);

/// A command with its options. Members are initialised with the defaults; table() says how each is
/// called and read, and is all that an option needs besides its use.
struct Command {
  std::string program = "sinkref";  ///< as it was called
  std::string model;
  bool model_given = false;  ///< otherwise it is the tiny model that comes along
  size_t threads = 0;
  bool json = false;
  std::set<std::string> given;  ///< names of the options that are there, "model"

  virtual ~Command() = default;
  /// Rows that refer to this object's members.
  virtual OptionTable table() = 0;
  virtual int run() const = 0;
  virtual bool needs_model() const { return true; }
};

/// What `sinkref --help` lists.
struct CommandRow {
  const char* name;
  const char* summary;
  const char* example;
  std::unique_ptr<Command> (*make)();
  std::string (*more_help)() = nullptr;  ///< what its help says after the options
};

/// A command whose members `arguments` have filled; nothing if its help was asked for and printed.
/// Throws InputError for an option that is unknown, unknown to this command, or malformed.
/// `all`: to tell whose an option of another command is.
std::unique_ptr<Command> parse_command(const CommandRow& row, const std::vector<CommandRow>& all,
                                       const std::vector<std::string>& arguments);

/// Every row of the command, the common ones last.
OptionTable whole_table(Command& command);

/// The name of a file or folder without what stands before it, as UTF-8.
std::string last_part(const std::string& path);

}  // namespace sinkref::cli
