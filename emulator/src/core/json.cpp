#include "core/json.h"

#include <charconv>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "core/errors.h"

namespace emulator {

class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}

  Json document() {
    Json value = read();
    skip_space();
    if (position_ != text_.size()) complain("text after the end");
    return value;
  }

 private:
  [[noreturn]] void complain(const char* what) const {
    fail(ACL_ERROR_INVALID_PARAM, "JSON, character %zu: %s.", position_ + 1, what);
  }

  void skip_space() {
    while (position_ < text_.size() && std::string_view(" \t\r\n").find(text_[position_]) != std::string_view::npos) {
      ++position_;
    }
  }

  char peek() {
    skip_space();
    if (position_ == text_.size()) complain("the text ends too early");
    return text_[position_];
  }

  bool accept(char expected) {
    if (peek() != expected) return false;
    ++position_;
    return true;
  }

  void expect(char expected) {
    if (!accept(expected)) complain((std::string("expected '") + expected + "'").c_str());
  }

  bool accept_word(std::string_view word) {
    if (text_.substr(position_, word.size()) != word) return false;
    position_ += word.size();
    return true;
  }

  Json read() {
    Json value;
    const char next = peek();
    if (next == '{') {
      read_object(value);
    } else if (next == '[') {
      read_array(value);
    } else if (next == '"') {
      value.type_ = Json::Type::kString;
      value.string_ = read_string();
    } else if (accept_word("true") || accept_word("false")) {
      value.type_ = Json::Type::kBool;
      value.number_ = next == 't' ? 1 : 0;
    } else if (!accept_word("null")) {
      read_number(value);
    }
    return value;
  }

  void read_object(Json& value) {
    value.type_ = Json::Type::kObject;
    expect('{');
    if (accept('}')) return;
    do {
      if (peek() != '"') complain("expected a key in quotes");
      std::string key = read_string();
      expect(':');
      value.members_[std::move(key)] = read();
    } while (accept(','));
    expect('}');
  }

  void read_array(Json& value) {
    value.type_ = Json::Type::kArray;
    expect('[');
    if (accept(']')) return;
    do {
      value.items_.push_back(read());
    } while (accept(','));
    expect(']');
  }

  std::string read_string() {
    expect('"');
    std::string result;
    while (position_ < text_.size() && text_[position_] != '"') {
      char character = text_[position_++];
      if (character == '\\') {
        if (position_ == text_.size()) complain("the text ends inside a string");
        character = text_[position_++];
        if (character == 'n') character = '\n';
        if (character == 't') character = '\t';
        if (character == 'u') complain("\\u escapes are not supported");
      }
      result += character;
    }
    if (position_ == text_.size()) complain("the text ends inside a string");
    ++position_;
    return result;
  }

  void read_number(Json& value) {
    const char* begin = text_.data() + position_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value.number_);
    if (error != std::errc()) complain("expected a value");
    value.type_ = Json::Type::kNumber;
    position_ += static_cast<size_t>(end - begin);
  }

  std::string_view text_;
  size_t position_ = 0;
};

Json Json::parse(std::string_view text) {
  return JsonReader(text).document();
}

Json Json::parse_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail(ACL_ERROR_INVALID_FILE, "\"%s\" cannot be read.", path.c_str());
  std::stringstream text;
  text << file.rdbuf();
  return parse(text.str());
}

const Json* Json::find(const std::string& key) const {
  const auto found = members_.find(key);
  return found == members_.end() ? nullptr : &found->second;
}

std::string json_quote(std::string_view text) {
  std::string result = "\"";
  for (const char character : text) {
    if (character == '"' || character == '\\') {
      result += '\\';
      result += character;
    } else if (static_cast<unsigned char>(character) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", character);
      result += escaped;
    } else {
      result += character;
    }
  }
  return result + "\"";
}

}  // namespace emulator
