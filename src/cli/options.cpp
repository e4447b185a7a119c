#include "cli/options.h"

#include <algorithm>
#include <iostream>
#include <set>
#include <sstream>

#include "base/closest.h"
#include "cli/output.h"
#include "sinkref/error.h"
#include "sinkref/tiny_model.h"

namespace sinkref::cli {

namespace {

/// A whole number within limits.
size_t whole_number(const std::string& text, size_t least, size_t most) {
  const bool digits =
      !text.empty() && text.size() <= 9 &&
      std::all_of(text.begin(), text.end(), [](unsigned char c) { return c >= '0' && c <= '9'; });
  if (!digits || std::stoul(text) < least || std::stoul(text) > most)
    throw InputError("expected a whole number from " + std::to_string(least) + " to " +
                     std::to_string(most));
  return std::stoul(text);
}

std::string list_of(const std::vector<std::string>& names, const char* between) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : between) + name;
  return list;
}

}  // namespace

Value text(const char* argument, std::string& into) {
  return {argument, into, {}, [&into](const std::string& given) { into = given; }};
}

Value text(const char* argument, std::optional<std::string>& into) {
  return {argument, into.value_or(""), {}, [&into](const std::string& given) { into = given; }};
}

Value place(const char* argument, std::optional<std::string>& into) {
  return {argument, "", {}, [&into](const std::string& given) {
            if (given.empty()) throw InputError("is empty; expected a place to write to");
            into = given;
          }};
}

Value texts(const char* argument, std::vector<std::string>& into) {
  Value value{argument, "", {}, [&into](const std::string& given) { into.push_back(given); }};
  value.several = true;
  return value;
}

Value single_words(const char* argument, std::vector<std::string>& into) {
  Value value = texts(argument, into);
  value.read = [&into](const std::string& given) {
    if (given.empty()) throw InputError("is empty; expected a word");
    // Its last token alone would run, under the name of all.
    if (given.find_first_of(" \t\n") != given.npos)
      throw InputError("expected one word, found a blank; give the option once for each word");
    into.push_back(given);
  };
  return value;
}

Value number(size_t& into, size_t least, size_t most) {
  return {"N", std::to_string(into), {}, [&into, least, most](const std::string& given) {
            into = whole_number(given, least, most);
          }};
}

Value number(std::optional<size_t>& into, size_t least, size_t most) {
  return {"N", "", {}, [&into, least, most](const std::string& given) {
            into = whole_number(given, least, most);
          }};
}

Value flag(bool& into) {
  return {"", "", {}, [&into](const std::string&) { into = true; }};
}

Value choice(std::string& into, const std::vector<std::string>& choices) {
  return chosen_from(choices, into, [&into, choices](size_t i) { into = choices[i]; });
}

Value chosen_from(const std::vector<std::string>& choices, const std::string& fallback,
                  std::function<void(size_t)> choose) {
  return {list_of(choices, "|"), fallback, choices,
          [choices, choose = std::move(choose)](const std::string& given) {
            const auto found = std::find(choices.begin(), choices.end(), given);
            if (found == choices.end())
              throw InputError("expected one of " + list_of(choices, ", "));
            choose(static_cast<size_t>(found - choices.begin()));
          }};
}

Value noted(Value value, bool& given) {
  value.given = &given;
  return value;
}

OptionTable joined(const std::vector<OptionTable>& tables) {
  OptionTable all;
  for (const OptionTable& table : tables) all.insert(all.end(), table.begin(), table.end());
  return all;
}

OptionTable whole_table(Command& command) {
  return joined({command.table(),
                 {{"json", flag(command.json), "machine-readable result on stdout"},
                  {"model", noted(text("PATH", command.model), command.model_given),
                   "Hugging Face folder or .gguf file; without it the tiny model that comes along is "
                   "run"},
                  {"threads", number(command.threads, 0, 1024),
                   "threads, 0 for as many as this process may keep busy; cannot change a bit"}}});
}

std::string last_part(const std::string& text) {
  const std::filesystem::path path = std::filesystem::path(text).lexically_normal();
  return valid_utf8((path.has_filename() ? path : path.parent_path()).filename().string());
}

namespace {

const Option* find(const OptionTable& table, const std::string& name) {
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const Option& option) { return option.name == name; });
  return found == table.end() ? nullptr : &*found;
}

/// "--json" or "--out=t", but not the text "-- and on" nor "-", standard input.
bool is_option(const std::string& argument) {
  return argument.size() > 1 && argument[0] == '-' && argument != "--" &&
         (argument[1] != '-' || (argument[2] >= 'a' && argument[2] <= 'z'));
}

/// Reads one command's arguments from left to right. Names are never guessed: a script must not
/// change its meaning with a new option.
class Parser {
 public:
  Parser(const CommandRow& row, const std::vector<CommandRow>& all, const OptionTable& table,
         const std::vector<std::string>& arguments, std::set<std::string>& given)
      : row_(row), all_(all), table_(table), rest_(arguments), given_(given) {}

  /// False if the help was asked for.
  bool parse() {
    for (bool named = true; at_ < rest_.size();) {
      const std::string argument = rest_[at_++];
      if (named && argument == "--") named = false;
      else if (named && (argument == "--help" || argument == "-h")) return false;
      else if (named && is_option(argument)) take_option(argument);
      else take_unnamed(argument);
    }
    return true;
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const {
    throw InputError(row_.name + (": " + problem) + "; sinkref " + row_.name +
                     " --help lists the options");
  }

  void take_option(const std::string& argument) {
    const size_t equals = std::min(argument.find('='), argument.size());
    const std::string name = argument.substr(0, equals);
    const Option* option = name.starts_with("--") ? find(table_, name.substr(2)) : nullptr;
    if (option == nullptr) unknown(name);
    if (!given_.insert(option->name).second && !option->value.several)
      fail(name + " is given twice, expected once");
    last_ = option;
    const bool has_value = equals < argument.size();
    if (option->value.argument.empty()) {
      if (has_value) fail(name + " is a switch and takes no value");
      return read(*option, "");
    }
    if (has_value) return read(*option, argument.substr(equals + 1));
    if (at_ == rest_.size() || is_missing(rest_[at_])) {
      const std::string found = at_ == rest_.size() ? "nothing" : rest_[at_];
      fail(name + ": expected " + option->value.argument + " after it, found " + found +
           (at_ == rest_.size() ? "" : " (a value that begins so is given as " + name + "=VALUE)"));
    }
    read(*option, rest_[at_++]);
    while (option->value.several && at_ < rest_.size() && !is_option(rest_[at_]) &&
           rest_[at_] != "--")
      read(*option, rest_[at_++]);
  }

  /// A negative number or a text that begins with one dash is a value.
  static bool is_missing(const std::string& next) {
    return is_option(next) && next.starts_with("--");
  }

  void take_unnamed(const std::string& argument) {
    for (const Option& option : table_)
      if (option.unnamed) return read(option, argument);
    fail(sinkref::quoted(argument) + " is a stray positional argument" + hint(argument));
  }

  /// What the person may have meant by words that no option takes.
  std::string hint(const std::string& argument) const {
    const bool text = last_ && (last_->value.argument == "TEXT" || last_->value.argument == "GLOBS");
    if (text)
      return " after --" + last_->name + "; the shell splits at blanks and fills in stars, so a text "
             "wants quotes: --" + last_->name + " '" + last_value_ + " " + argument + " …'";
    if (last_ && (last_value_.ends_with(',') || argument.starts_with(',')))
      return " after --" + last_->name + "; lists are written without blanks: 1,2,3";
    if (find(table_, "prompt") != nullptr) return "; a text to run is given as --prompt 'TEXT'";
    return "";
  }

  void read(const Option& option, const std::string& given) {
    try {
      option.value.read(given);
    } catch (const InputError& e) {
      const std::string what = e.what();
      throw InputError("--" + option.name +
                       (what.starts_with("is ") ? " " : " " + quoted(given) + ": ") + what);
    }
    if (option.value.given != nullptr) *option.value.given = true;
    last_value_ = given;
  }

  [[noreturn]] void unknown(const std::string& name) const {
    std::vector<std::string> names = {"--help"};
    for (const Option& option : table_) names.push_back("--" + option.name);
    std::string owners;
    for (const CommandRow& other : all_) {
      const std::unique_ptr<Command> command = other.make();
      if (name.starts_with("--") && find(whole_table(*command), name.substr(2)) != nullptr)
        owners += (owners.empty() ? "" : ", ") + std::string(other.name);
    }
    if (!owners.empty()) fail("has no option " + name + ", which belongs to " + owners + did_you_mean(name, names));
    fail("has no option " + name + did_you_mean(name, names));
  }

  const CommandRow& row_;
  const std::vector<CommandRow>& all_;
  const OptionTable& table_;
  const std::vector<std::string>& rest_;
  size_t at_ = 0;
  std::set<std::string>& given_;
  const Option* last_ = nullptr;
  std::string last_value_;
};

constexpr size_t line_width = 96;

/// Words on lines of their own column, after a first line that is `used` wide already.
void print_wrapped(const std::string& text, size_t column, size_t used) {
  std::istringstream words(text);
  std::string line;
  if (used + 1 >= column) std::cout << '\n' << std::string(column, ' ');
  else std::cout << std::string(column - used, ' ');
  for (std::string word; words >> word;) {
    if (!line.empty() && column + line.size() + 1 + word.size() > line_width) {
      std::cout << line << '\n' << std::string(column, ' ');
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  std::cout << line << '\n';
}

void print_help(const CommandRow& row, const OptionTable& table) {
  std::cout << "sinkref " << row.name << ": " << row.summary << "\n\nExample:\n  " << row.example
            << "\n\nOptions:\n";
  constexpr size_t column = 28;
  const auto line = [&](const std::string& left, const std::string& help) {
    std::cout << left;
    print_wrapped(help, column, left.size());
  };
  for (const Option& option : table) {
    const Value& value = option.value;
    const std::string default_text =
        value.fallback.empty() ? "" : " (default: " + value.fallback + ")";
    line("  --" + option.name + (value.argument.empty() ? "" : " " + value.argument) +
             (value.several ? " …" : ""),
         option.help + default_text);
  }
  line("  -h, --help", "this text");
  if (row.more_help != nullptr) std::cout << row.more_help();
  std::cout << "\nA value may follow its option or stand behind it as --option=value. Options are "
               "never guessed\nfrom a part of their name.\n"
               "Exit: 0 done, 1 a check failed, 2 bad input or usage, 3 internal error.\n";
}

}  // namespace

std::unique_ptr<Command> parse_command(const CommandRow& row, const std::vector<CommandRow>& all,
                                       const std::vector<std::string>& arguments) {
  std::unique_ptr<Command> command = row.make();
  const OptionTable table = whole_table(*command);
  if (!Parser(row, all, table, arguments, command->given).parse()) {
    print_help(row, table);
    return nullptr;
  }
  if (command->model_given && command->model.empty())
    throw InputError("--model is empty; expected a folder or a .gguf file");
  if (!command->model_given && command->needs_model()) command->model = tiny_model().string();
  return command;
}

}  // namespace sinkref::cli
